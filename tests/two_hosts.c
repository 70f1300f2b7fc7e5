/* SPDX-License-Identifier: ISC */
/*
 * Made by ip (iproute2).  The neighbours know each other's hardware address for
 * good: nobody notices by a question for it that is not answered, which a host
 * behind a router does not either.
 */
#include "tests/two_hosts.h"

#include "tests/support.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#define CLIENT_MAC "02:00:00:00:53:02"
#define SERVER_MAC "02:00:00:00:53:01"

static int client_host, server_host;

static int
here(void)
{
    return open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
}

/* A shell's command on one of the hosts. */
static bool
run(bool on_server, const char *command)
{
    two_hosts_go(on_server);
    int status = system(command);
    two_hosts_go(false);
    return status == 0;
}

const char *
two_hosts_begin(void)
{
    static char why[160];
    char command[256];

    if (system("command -v ip >/dev/null") != 0)
        return "there is no ip (iproute2)";
    if (unshare(CLONE_NEWNET) != 0 || (server_host = here()) < 0
        || unshare(CLONE_NEWNET) != 0 || (client_host = here()) < 0) {
        snprintf(why, sizeof why, "no network namespaces: %s", strerror(errno));
        return why;
    }
    snprintf(command, sizeof command,
             "ip link add veth-client address " CLIENT_MAC " type veth"
             " peer name veth-server netns /proc/%d/fd/%d",
             (int)getpid(), server_host);
    if (!run(false, command))
        return "no veth pair can be made";
    if (!run(true, "ip link set veth-server address " SERVER_MAC)
        || !run(true, "ip addr add " TWO_HOSTS_SERVER "/30 dev veth-server")
        || !run(false, "ip addr add " TWO_HOSTS_CLIENT "/30 dev veth-client")
        || !run(true, "ip link set veth-server up")
        || !run(false, "ip link set veth-client up")
        || !run(false, "ip neigh add " TWO_HOSTS_SERVER " lladdr " SERVER_MAC
                       " dev veth-client nud permanent"))
        return "the hosts can not be joined";
    two_hosts_cable(true);
    return NULL;
}

void
two_hosts_go(bool to_server)
{
    assert_int_equal(setns(to_server ? server_host : client_host, CLONE_NEWNET),
                     0);
}

void
two_hosts_cable(bool in)
{
    if (!in) {
        assert_true(run(true, "ip link set veth-server down"));
        return;
    }
    assert_true(run(true, "ip link set veth-server up"));
    /* What it knew was forgotten when it went down. */
    assert_true(run(true,
                    "ip neigh replace " TWO_HOSTS_CLIENT " lladdr " CLIENT_MAC
                    " dev veth-server nud permanent"));
}

void
two_hosts_mute(bool mute)
{
    static bool muted;

    if (muted == mute)
        return;
    muted = mute;
    assert_true(
        run(true, mute ? "ip route add blackhole " TWO_HOSTS_CLIENT "/32"
                       : "ip route del blackhole " TWO_HOSTS_CLIENT "/32"));
}

unsigned
two_hosts_connections(unsigned port)
{
    char line[512];
    unsigned count = 0, remote, state;
    FILE *table = fopen("/proc/thread-self/net/tcp", "re");

    assert_non_null(table);
    while (fgets(line, sizeof line, table) != NULL)
        count += sscanf(line, " %*u: %*x:%*x %*x:%x %x", &remote, &state) == 2
                 && remote == port && state == 1;
    fclose(table);
    return count;
}
