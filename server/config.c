/* SPDX-License-Identifier: ISC */
/*
 * Options: one table of words, for the command line (`--word value`,
 * `--word=value`) and for the file (`word = value`).  What may be said more
 * than once adds up; of everything else the last one counts.
 */
#include "server/config_kind.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_LENGTH 8192
#define FILES_MAX 8 /* nested */

struct word {
    const char *name;
    const char *value; /* what to write in the help; NULL: a flag, which the
                          command line gives by its name alone */
    bool (*set)(struct config *config, const struct word *word,
                const char *text, const struct place *place);
    size_t offset; /* of a number or flag in struct farblk_server_options, of a
                      path in struct config */
    uint64_t min, max;
    const char *help;
};

bool
config_complain(const struct place *place, const char *format, ...)
{
    va_list args;
    char text[1024];
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (place->file != NULL)
        fprintf(stderr, "farblkd: %s:%u: %s\n", place->file, place->line, text);
    else
        fprintf(stderr, "farblkd: %s (farblkd --help tells the options)\n",
                text);
    return false;
}

bool
config_no_memory(const struct place *place)
{
    return config_complain(place, "no memory");
}

/* ------------------------------------------------------------ values */

/* Digits of that base and nothing else; *rest: what follows them. */
static bool
config_parse_digits(const char *text, int base, uint64_t *number,
                    const char **rest)
{
    char *end;
    if (!isdigit((unsigned char)text[0]))
        return false;
    errno = 0;
    unsigned long long value = strtoull(text, &end, base);
    *number = value;
    *rest = end;
    return errno == 0;
}

static bool
config_set_number(struct config *config, const struct word *word,
                  const char *text, const struct place *place)
{
    const char *rest;
    uint64_t number;
    if (!config_parse_digits(text, 10, &number, &rest) || *rest != '\0'
        || number < word->min || number > word->max)
        return config_complain(
            place, "%s: \"%s\" is not a number within %llu ... %llu",
            word->name, text, (unsigned long long)word->min,
            (unsigned long long)word->max);
    *(uint32_t *)((char *)&config->server + word->offset) = (uint32_t)number;
    return true;
}

static bool
config_parse_size(const char *text, uint64_t *size)
{
    static const char units[] = "kmgt";
    const char *rest;
    if (!config_parse_digits(text, 10, size, &rest))
        return false;
    if (*rest == '\0')
        return true;
    const char *unit = strchr(units, tolower((unsigned char)*rest));
    if (unit == NULL || rest[1] != '\0')
        return false;
    unsigned shift = 10 * (unsigned)(unit - units + 1);
    if (*size > UINT64_MAX >> shift)
        return false;
    *size <<= shift;
    return true;
}

static bool
config_take_size(const struct word *word, const char *text, uint64_t *size,
                 const struct place *place)
{
    if (config_parse_size(text, size) && *size >= word->min
        && *size <= word->max)
        return true;
    return config_complain(place,
                           "%s: \"%s\" is not a size (4k, 1M, 2G) within %llu "
                           "... %llu octets",
                           word->name, text, (unsigned long long)word->min,
                           (unsigned long long)word->max);
}

static bool
config_set_size(struct config *config, const struct word *word,
                const char *text, const struct place *place)
{
    uint64_t size = 0;
    if (!config_take_size(word, text, &size, place))
        return false;
    *(uint64_t *)((char *)&config->server + word->offset) = size;
    return true;
}

static bool
config_set_size32(struct config *config, const struct word *word,
                  const char *text, const struct place *place)
{
    uint64_t size = 0;
    if (!config_take_size(word, text, &size, place))
        return false;
    *(uint32_t *)((char *)&config->server + word->offset) = (uint32_t)size;
    return true;
}

static bool
config_set_mode(struct config *config, const struct word *word,
                const char *text, const struct place *place)
{
    const char *rest;
    uint64_t mode;
    if (!config_parse_digits(text, 8, &mode, &rest) || *rest != '\0'
        || mode == 0 || mode > 0777)
        return config_complain(place,
                               "%s: \"%s\" is not an octal mode within 1 ... "
                               "777",
                               word->name, text);
    config->server.ipc_mode = (uint32_t)mode;
    return true;
}

static bool
config_set_keepalive(struct config *config, const struct word *word,
                     const char *text, const struct place *place)
{
    if ((text[0] != '0' && text[0] != '1') || text[1] != '\0')
        return config_complain(place, "%s: \"%s\" is neither 0 nor 1",
                               word->name, text);
    config->server.no_keepalive = text[0] == '0';
    return true;
}

static bool
config_set_level(struct config *config, const struct word *word,
                 const char *text, const struct place *place)
{
    static const char *const levels[] = {"error", "warning", "info", "debug"};
    for (unsigned i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        if (strcmp(text, levels[i]) == 0) {
            config->log_level = (enum farblk_log_level)i;
            return true;
        }
    }
    return config_complain(place,
                           "%s: \"%s\" is none of error, warning, info, debug",
                           word->name, text);
}

static bool
config_set_listen(struct config *config, const struct word *word,
                  const char *text, const struct place *place)
{
    if (strstr(text, "://") == NULL)
        return config_complain(place, "%s: \"%s\" is not a URL", word->name,
                               text);
    char **listen =
        realloc(config->listen, (config->listen_count + 1) * sizeof *listen);
    if (listen == NULL)
        return config_no_memory(place);
    config->listen = listen;
    listen[config->listen_count] = strdup(text);
    if (listen[config->listen_count] == NULL)
        return config_no_memory(place);
    config->listen_count++;
    return true;
}

static bool
config_set_export(struct config *config, const struct word *word,
                  const char *text, const struct place *place)
{
    return config_add_export(config, word->name, text, place);
}

static bool
config_set_user(struct config *config, const struct word *word,
                const char *text, const struct place *place)
{
    return config_find_owner(word->name, text, &config->user, place);
}

static bool
config_set_ipc_owner(struct config *config, const struct word *word,
                     const char *text, const struct place *place)
{
    struct config_owner owner = {0};
    if (!config_find_owner(word->name, text, &owner, place))
        return false;
    config->server.ipc_uid = owner.uid;
    config->server.ipc_gid = owner.gid;
    return true;
}

static bool
config_set_path(struct config *config, const struct word *word,
                const char *text, const struct place *place)
{
    char **to = (char **)((char *)config + word->offset);
    if (text[0] == '\0')
        return config_complain(place, "%s: \"\" is not a path", word->name);
    free(*to);
    *to = strdup(text);
    return *to != NULL || config_no_memory(place);
}

static bool
config_set_flag(struct config *config, const struct word *word,
                const char *text, const struct place *place)
{
    if ((text[0] != '0' && text[0] != '1') || text[1] != '\0')
        return config_complain(place, "%s: \"%s\" is neither 0 nor 1",
                               word->name, text);
    *(uint32_t *)((char *)&config->server + word->offset) =
        text[0] == '1' ? 1 : 0;
    return true;
}

static bool config_set_file(struct config *config, const struct word *word,
                            const char *text, const struct place *place);

#define OPTION(member) offsetof(struct farblk_server_options, member)
#define CONFIG(member) offsetof(struct config, member)

static const struct word words[] = {
    {"listen", "URL", config_set_listen, 0, 0, 0,
     "serve there: ipc:///PATH, abstract://NAME, tcp://HOST:PORT,\n"
     "tls+tcp://HOST:PORT, ws://HOST:PORT/PATH; may be repeated"},
    {"export", "NAME=URI", config_set_export, 0, 0, 0,
     "serve this device under that name; may be repeated.  With\n"
     "NAME=URI,allow-uid=USER,allow-gid=GROUP,token-file=FILE\n"
     "only to these users and groups, and who shows the token"},
    {"config", "FILE", config_set_file, 0, 0, 0,
     "read options from a file: `word = value` lines, # comments"},
    {"pidfile", "FILE", config_set_path, CONFIG(pidfile), 0, 0,
     "write the process id there when ready; removed at exit"},
    {"max-connections", "N", config_set_number, OPTION(max_connections), 1,
     100000, "connections at once (100)"},
    {"max-sessions", "N", config_set_number, OPTION(max_sessions), 1, 100000,
     "sessions at once (1024)"},
    {"connection-sessions", "N", config_set_number, OPTION(connection_sessions),
     1, 100000, "sessions of one connection (an eighth of them, 8 at least)"},
    {"max-requests", "N", config_set_number, OPTION(max_requests), 1, 32768,
     "unanswered requests of a connection (256)"},
    {"max-octets", "SIZE", config_set_size, OPTION(max_octets), 512,
     UINT64_C(1) << 50, "data in them (64M)"},
    {"max-payload", "SIZE", config_set_size32, OPTION(max_payload), 512,
     64u << 20, "data in one request (4M)"},
    {"max-handles", "N", config_set_number, OPTION(max_handles), 1, 1000000,
     "open devices of a session (64)"},
    {"lease", "MS", config_set_number, OPTION(lease_ms), 100, 86400000,
     "a silent session ends after this (30000)"},
    {"hello-timeout", "MS", config_set_number, OPTION(hello_timeout_ms), 10,
     86400000, "a connection without a session ends after this (10000)"},
    {"frame-timeout", "MS", config_set_number, OPTION(frame_timeout_ms), 10,
     86400000, "a message once begun must be complete in this (30000)"},
    {"idle-timeout", "MS", config_set_number, OPTION(idle_timeout_ms), 0,
     86400000, "a session that is asked nothing ends after this (0: never)"},
    {"keepalive", "0|1", config_set_keepalive, 0, 0, 0,
     "let the system probe silent TCP connections (1)"},
    {"memory-limit", "SIZE", config_set_size, OPTION(memory_limit), 65536,
     UINT64_C(1) << 60, "memory for data, ramdisks included (half of RAM)"},
    {"ipc-mode", "OCTAL", config_set_mode, 0, 0, 0,
     "permissions of sockets in the file system (600)"},
    {"ipc-owner", "USER[:GROUP]", config_set_ipc_owner, 0, 0, 0,
     "whose they are (this process's)"},
    {"insecure", NULL, config_set_flag, OPTION(insecure), 0, 0,
     "listen without encryption (tcp, ws) on other addresses than\n"
     "loopback as well"},
    {"user", "USER[:GROUP]", config_set_user, 0, 0, 0,
     "become that user when all devices, keys and sockets are open"},
    {"tls-cert", "FILE", config_set_path, CONFIG(tls_cert), 0, 0,
     "the certificate that tls+tcp shows (PEM)"},
    {"tls-key", "FILE", config_set_path, CONFIG(tls_key), 0, 0,
     "its key (PEM, readable by its owner only)"},
    {"tls-ca", "FILE", config_set_path, CONFIG(tls_ca), 0, 0,
     "CA certificates (PEM) to verify clients by"},
    {"tls-verify-clients", NULL, config_set_flag, OPTION(tls_verify_clients), 0,
     0, "refuse clients that show no certificate of that CA"},
    {"no-shm", NULL, config_set_flag, OPTION(no_shm), 0, 0,
     "share no memory with clients of this host"},
    {"shm-arena", "SIZE", config_set_size, OPTION(shm_arena), 4096,
     UINT64_C(1) << 30, "shared memory for the data of one session (16M)"},
    {"shm-total", "SIZE", config_set_size, OPTION(shm_total), 65536,
     UINT64_C(1) << 60, "of all sessions (a quarter of the memory limit)"},
    {"log-level", "LEVEL", config_set_level, 0, 0, 0,
     "error, warning, info or debug, to stderr (info)"},
};

/* ------------------------------------------------------------ the file */

static bool
config_set(struct config *config, const char *name, const char *text,
           const struct place *place)
{
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(words[i].name, name) == 0)
            return words[i].set(config, &words[i], text, place);
    return config_complain(place, "unknown option \"%s\"", name);
}

static char *
config_trim(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    char *end = text + strlen(text);
    while (end > text && isspace((unsigned char)end[-1]))
        end--;
    *end = '\0';
    return text;
}

static bool
config_read_line(struct config *config, char *line, const struct place *place)
{
    char *text = config_trim(line);
    if (*text == '\0' || *text == '#')
        return true;
    char *equals = strchr(text, '=');
    if (equals == NULL)
        return config_complain(place, "\"%s\" is not `word = value`", text);
    *equals = '\0';
    /* A value ends where a comment begins: " #". */
    char *value = equals + 1;
    for (char *at = value; *at != '\0'; at++)
        if (*at == '#' && isspace((unsigned char)at[-1]))
            *at-- = '\0';
    return config_set(config, config_trim(text), config_trim(value), place);
}

static bool
config_set_file(struct config *config, const struct word *word,
                const char *path, const struct place *from)
{
    char line[LINE_MAX_LENGTH];
    struct place place = {.file = path, .depth = from->depth + 1};
    if (place.depth > FILES_MAX)
        return config_complain(from, "%s: more than %d files in each other",
                               word->name, FILES_MAX);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return config_complain(from, "%s: cannot read %s: %s", word->name, path,
                               strerror(errno));
    bool good = true;
    while (good && fgets(line, sizeof line, file) != NULL) {
        place.line++;
        if (strchr(line, '\n') == NULL && !feof(file))
            good = config_complain(&place, "a line of more than %d octets",
                                   LINE_MAX_LENGTH - 2);
        else
            good = config_read_line(config, line, &place);
    }
    if (good && ferror(file))
        good = config_complain(from, "%s: cannot read %s: %s", word->name, path,
                               strerror(errno));
    fclose(file);
    return good;
}

/* ------------------------------------------------------------ the arguments */

/* One option; *at is moved behind it. */
static bool
config_is_flag(const char *name)
{
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(words[i].name, name) == 0)
            return words[i].value == NULL;
    return false;
}

static bool
config_read_option(struct config *config, int argc, char **argv, int *at)
{
    static const struct place place = {.file = NULL};
    char name[64];
    const char *option = argv[*at];
    if (strncmp(option, "--", 2) != 0 || option[2] == '\0')
        return config_complain(&place, "unexpected argument \"%s\"", option);
    const char *equals = strchr(option, '=');
    size_t length =
        equals != NULL ? (size_t)(equals - option) - 2 : strlen(option) - 2;
    snprintf(name, sizeof name, "%.*s", (int)(length < 60 ? length : 60),
             option + 2);
    (*at)++;
    if (equals == NULL && strcmp(name, "help") == 0) {
        config->help = true;
        return true;
    }
    if (equals == NULL && strcmp(name, "version") == 0) {
        config->version = true;
        return true;
    }
    const char *value = equals != NULL ? equals + 1 : NULL;
    if (value == NULL && config_is_flag(name))
        value = "1";
    if (value == NULL && *at < argc)
        value = argv[(*at)++];
    if (value == NULL) {
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
            if (strcmp(words[i].name, name) == 0)
                return config_complain(&place, "--%s wants a value: %s", name,
                                       words[i].value);
        value = "";
    }
    return config_set(config, name, value, &place);
}

bool
config_read(struct config *config, int argc, char **argv)
{
    static const struct place place = {.file = NULL};
    memset(config, 0, sizeof *config);
    config->server.size = sizeof config->server;
    config->log_level = FARBLK_LOG_INFO;
    for (int at = 1; at < argc;)
        if (!config_read_option(config, argc, argv, &at))
            return false;
    if (config->help || config->version)
        return true;
    config->server.tls_cert = config->tls_cert;
    config->server.tls_key = config->tls_key;
    config->server.tls_ca = config->tls_ca;
    if (config->listen_count == 0)
        return config_complain(&place, "nowhere to listen: give --listen URL");
    return true;
}

void
config_fini(struct config *config)
{
    for (size_t i = 0; i < config->listen_count; i++)
        free(config->listen[i]);
    config_free_exports(config);
    free(config->listen);
    free(config->pidfile);
    free(config->tls_cert);
    free(config->tls_key);
    free(config->tls_ca);
}

void
config_print_help(void)
{
    printf("farblkd serves block devices to farblk clients.\n\n"
           "usage: farblkd --listen URL ... --export NAME=URI ... [OPTIONS]\n"
           "       farblkd --config FILE\n\noptions:\n");
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        const char *help = words[i].help;
        char head[64];
        snprintf(head, sizeof head, "--%s %s", words[i].name,
                 words[i].value != NULL ? words[i].value : "");
        for (;;) {
            int length = (int)strcspn(help, "\n");
            printf("  %-24s%.*s\n", head, length, help);
            if (help[length] == '\0')
                break;
            help += length + 1;
            head[0] = '\0';
        }
    }
    printf("  %-24s%s\n  %-24s%s\n\ndevices:\n", "--help", "this", "--version",
           "the version");
    for (size_t i = 0; farblk_driver(i) != NULL; i++)
        printf("  %s\n      %s\n", farblk_driver(i)->usage,
               farblk_driver(i)->summary);
    printf("\nexample:\n"
           "  farblkd --listen ipc:///run/farblk.sock "
           "--export disk0=file:/var/lib/disk.img\n");
}
