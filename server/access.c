/* SPDX-License-Identifier: ISC */
/*
 * Who may do what.  Nothing here knows of sessions or locks: rules are fixed
 * when an export is made, and who is at the other end when it connects.
 */
#include "server/access.h"

#include "core/secret.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A token of fewer could be found by trying. */
#define TOKEN_LEAST 16u
#define NAMES_MOST 65536u

struct access_who
access_who_is(const struct link_peer *peer)
{
    bool inproc = strcmp(peer->transport, "inproc") == 0;
    return (struct access_who){
        .known = peer->has_uid || inproc,
        .uid = inproc ? geteuid() : peer->uid,
        .gid = inproc ? getegid() : peer->gid,
        .is_private =
            inproc || peer->has_uid || strcmp(peer->transport, "tls") == 0,
    };
}

/* ------------------------------------------------------------ rules */

static int
copy_ids(const uint32_t *from, size_t count, uint32_t **to, size_t *to_count,
         struct error *error)
{
    if (count == 0)
        return 0;
    if (from == NULL || count > NAMES_MOST)
        return error_set(error, FARBLK_INVALID,
                         "%zu users or groups are named; at most %u", count,
                         NAMES_MOST);
    *to = malloc(count * sizeof **to);
    if (*to == NULL)
        return error_set(error, FARBLK_NO_MEMORY, "no memory for users");
    memcpy(*to, from, count * sizeof **to);
    *to_count = count;
    return 0;
}

int
access_rules_init(struct access_rules *rules,
                  const struct farblk_export_options *options,
                  struct error *error)
{
    memset(rules, 0, sizeof *rules);
    int status = copy_ids(options->allow_uids, options->allow_uid_count,
                          &rules->uids, &rules->uid_count, error);
    if (status == 0)
        status = copy_ids(options->allow_gids, options->allow_gid_count,
                          &rules->gids, &rules->gid_count, error);
    rules->named = rules->uid_count > 0 || rules->gid_count > 0;
    if (status == 0 && options->token_file != NULL)
        status =
            secret_read_token(options->token_file, TOKEN_LEAST, rules->token,
                              WIRE_TOKEN_MAX, &rules->token_length, error);
    return status;
}

void
access_rules_fini(struct access_rules *rules)
{
    free(rules->uids);
    free(rules->gids);
    secret_wipe(rules, sizeof *rules);
}

bool
access_is_named(const struct access_rules *rules, const struct access_who *who)
{
    bool found = !rules->named;
    for (size_t i = 0; i < rules->uid_count && who->known; i++)
        found = found || rules->uids[i] == who->uid;
    for (size_t i = 0; i < rules->gid_count && who->known; i++)
        found = found || rules->gids[i] == who->gid;
    return found;
}

bool
access_has_token(const struct access_rules *rules,
                 const uint8_t token[WIRE_TOKEN_MAX], uint32_t length)
{
    /* Both are looked at to their ends, and their lengths with them. */
    bool same = secret_equal(rules->token, token, WIRE_TOKEN_MAX);
    same = (length == rules->token_length) & same;
    return rules->token_length == 0 || same;
}

/* ------------------------------------------------------------ addresses */

static bool
is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;
        return ntohl(in->sin_addr.s_addr) >> 24 == 127;
    }
    if (address->sa_family != AF_INET6)
        return false;
    const struct in6_addr *in =
        &((const struct sockaddr_in6 *)address)->sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(in)
           || (IN6_IS_ADDR_V4MAPPED(in) && in->s6_addr[12] == 127);
}

/* All that the name stands for. */
static bool
all_loopback(const char *host)
{
    const struct addrinfo wanted = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    if (host[0] == '\0' || getaddrinfo(host, NULL, &wanted, &found) != 0)
        return false;
    bool all = found != NULL;
    for (const struct addrinfo *at = found; at != NULL; at = at->ai_next)
        all = all && is_loopback(at->ai_addr);
    freeaddrinfo(found);
    return all;
}

int
access_check_url(const char *url, struct error *error)
{
    const char *host = strstr(url, "://");
    char name[256];
    if (host == NULL
        || (strncmp(url, "tcp", 3) != 0 && strncmp(url, "ws", 2) != 0))
        return 0;
    host += 3;
    size_t length = strcspn(host, ":/");
    if (host[0] == '[') {
        host++;
        length = strcspn(host, "]");
    }
    if (length < sizeof name) {
        memcpy(name, host, length);
        name[length] = '\0';
        if (all_loopback(name))
            return 0;
    }
    return error_set(error, FARBLK_DENIED,
                     "%.200s: there peers from elsewhere connect without "
                     "encryption and without telling who they are; use "
                     "tls+tcp://, or allow it (--insecure)",
                     url);
}
