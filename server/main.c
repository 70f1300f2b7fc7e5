/* SPDX-License-Identifier: ISC */
/*
 * farblkd: a server of the library's, with options, a log on stderr, and an end
 * on SIGTERM.
 *
 * Stays in the foreground.  SIGUSR1 logs what it has in hand.  Exit status: 0
 * after SIGTERM or SIGINT with all that was completed flushed, 1 when something
 * failed, 2 for bad options.
 */
#include "farblk/farblk.h"
#include "farblk/server.h"
#include "server/config.h"
#include "server/privilege.h"
#include "server/service.h"

#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

/* Payloads come and go: their memory is not given back to the kernel, only to
 * be faulted in again, each time. */
#define MAIN_MMAP_THRESHOLD (32 << 20)
#define MAIN_TRIM_THRESHOLD (256 << 20)

/* For requests under way when it is told to stop. */
#define STOP_PATIENCE_MS 30000

static void
main_log(void *arg, enum farblk_log_level level, const char *line)
{
    static const char *const levels[] = {"error", "warning", "info", "debug"};
    char text[2048];
    (void)arg;
    int length =
        snprintf(text, sizeof text, "farblkd: %s: %s\n", levels[level], line);
    if (length >= (int)sizeof text) {
        length = (int)sizeof text - 1;
        text[length - 1] = '\n';
    }
    /* One write, so that lines of several threads stay whole. */
    if (write(STDERR_FILENO, text, (size_t)length) < 0)
        return;
}

static int
main_fail(const char *what)
{
    fprintf(stderr, "farblkd: %s: %s\n", what, farblk_last_text());
    return 1;
}

/* Export and listen as told.  *pid_written: the pid file is ours to remove. */
static int
main_begin(struct farblk_server *server, const struct config *config,
           bool *pid_written)
{
    for (size_t i = 0; i < config->export_count; i++) {
        const struct config_export *export = &config->exports[i];
        const struct farblk_export_options options = {
            .size = sizeof options,
            .allow_uids = export->uids,
            .allow_uid_count = export->uid_count,
            .allow_gids = export->gids,
            .allow_gid_count = export->gid_count,
            .token_file = export->token_file,
        };
        if (farblk_server_export_for(server, export->name, export->uri,
                                     &options)
            != 0)
            return main_fail("cannot export");
    }
    for (size_t i = 0; i < config->listen_count; i++)
        if (farblk_server_listen(server, config->listen[i]) != 0)
            return main_fail("cannot listen");
    for (size_t i = 0; farblk_server_url(server, i) != NULL; i++)
        printf("farblkd: listening on %s\n", farblk_server_url(server, i));
    *pid_written =
        config->pidfile != NULL && service_write_pid(config->pidfile);
    if (config->pidfile != NULL && !*pid_written)
        return 1;
    if (config->user.given && !privilege_drop(&config->user))
        return 1;
    printf("farblkd: ready\n");
    fflush(stdout);
    service_notify("READY=1");
    return 0;
}

/* SIGUSR1: what the server has in hand, as one line of the log that is there at
 * every level. */
static void
main_report(struct farblk_server *server)
{
    struct farblk_server_stats now;
    char line[512];
    if (farblk_server_stats(server, &now, sizeof now) != 0)
        return;
    snprintf(
        line, sizeof line,
        "now (most): connections %llu (%llu), sessions %llu (%llu), handles "
        "%llu, requests %llu (%llu), octets %llu (%llu), memory %llu (%llu) "
        "of %llu; so far: accepted %llu, refused %llu, displaced %llu, "
        "completed %llu, damaged %llu",
        (unsigned long long)now.connections,
        (unsigned long long)now.most_connections,
        (unsigned long long)now.sessions, (unsigned long long)now.most_sessions,
        (unsigned long long)now.handles, (unsigned long long)now.requests,
        (unsigned long long)now.most_requests, (unsigned long long)now.octets,
        (unsigned long long)now.most_octets, (unsigned long long)now.memory,
        (unsigned long long)now.most_memory,
        (unsigned long long)now.memory_limit, (unsigned long long)now.accepted,
        (unsigned long long)now.refused, (unsigned long long)now.displaced,
        (unsigned long long)now.completed, (unsigned long long)now.damaged);
    main_log(NULL, FARBLK_LOG_INFO, line);
}

static int
main_serve(const struct config *config, const sigset_t *signals)
{
    struct farblk_server *server;
    bool pid_written = false;
    int number;
    if (farblk_server_create(&config->server, &server) != 0)
        return main_fail("cannot begin");
    int status = main_begin(server, config, &pid_written);
    if (status == 0) {
        while (sigwait(signals, &number) != 0 || number == SIGUSR1)
            main_report(server);
        service_notify("STOPPING=1");
    }
    int stopped = farblk_server_stop(server, STOP_PATIENCE_MS);
    if (stopped != 0)
        status = main_fail("stopped, but");
    if (pid_written)
        unlink(config->pidfile);
    if (stopped == FARBLK_TIMED_OUT)
        _exit(status); /* what hangs in the kernel would hold the end up */
    farblk_server_destroy(server);
    return status;
}

int
main(int argc, char **argv)
{
    struct config config;
    sigset_t signals;
    int status = 0;
    /* Before there are threads, which inherit it. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    mallopt(M_MMAP_THRESHOLD, MAIN_MMAP_THRESHOLD);
    mallopt(M_TRIM_THRESHOLD, MAIN_TRIM_THRESHOLD);
    if (!config_read(&config, argc, argv)) {
        status = 2;
    } else if (config.help) {
        config_print_help();
    } else if (config.version) {
        printf("farblkd %s\n", farblk_version());
    } else {
        farblk_set_log(config.log_level, main_log, NULL);
        status = config.user.given && !privilege_begin()
                     ? 1
                     : main_serve(&config, &signals);
    }
    config_fini(&config);
    return status;
}
