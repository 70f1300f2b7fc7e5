/* SPDX-License-Identifier: ISC */
/*
 * The plugin's parameters: one device (uri=), or all those behind a server
 * (server=), of which a client chooses one by its export's name.
 *
 * Checked before nbdkit forks, while its user looks on, and so without the
 * library opening anything: scheme and parameters by farblk_driver(); the rest
 * is farblk_open()'s to say.  nbdkit leaves the directory it was started in, so
 * relative paths are completed here.
 */
#include "nbdkit/plugin.h"

#define NBDKIT_API_VERSION 2
#include <errno.h>
#include <limits.h>
#include <nbdkit-plugin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define NAME_MAX_LENGTH 255

static char *uri, *server; /* NULL: not given */
static bool keep, keep_given;

bool
config_keep(void)
{
    return keep;
}

const char *
config_server(void)
{
    return server;
}

void
config_free(void)
{
    free(uri);
    free(server);
    uri = server = NULL;
    keep = keep_given = false;
}

static int
set_text(const char *key, const char *value, char **to)
{
    if (*to != NULL) {
        nbdkit_error("%s= is given twice", key);
        return -1;
    }
    *to = strdup(value);
    if (*to == NULL) {
        nbdkit_error("strdup: %m");
        return -1;
    }
    return 0;
}

int
config_set(const char *key, const char *value)
{
    if (strcmp(key, "uri") == 0)
        return set_text(key, value, &uri);
    if (strcmp(key, "server") == 0)
        return set_text(key, value, &server);
    if (strcmp(key, "keep") == 0) {
        int wanted = nbdkit_parse_bool(value);
        if (keep_given)
            nbdkit_error("keep= is given twice");
        if (wanted < 0 || keep_given)
            return -1;
        keep = wanted != 0;
        keep_given = true;
        return 0;
    }
    nbdkit_error("unknown parameter \"%s\"; known are: uri server keep", key);
    return -1;
}

/* ------------------------------------------------------- schemes, parameters */

/* `word`, of this length, among words between spaces. */
static bool
has_word(const char *words, const char *word, size_t length)
{
    for (; *words != '\0'; words += *words == ' ') {
        size_t n = strcspn(words, " ");
        if (n == length && strncasecmp(words, word, n) == 0)
            return true;
        words += n;
    }
    return false;
}

/* The driver of the URI's scheme; NULL: told. */
static const struct farblk_driver_info *
find_driver(const char *text)
{
    const struct farblk_driver_info *driver;
    char known[512] = "";
    size_t used = 0, length = strcspn(text, ":");
    if (text[length] == '\0') {
        nbdkit_error("\"%s\" is no URI: it has no scheme, as in file:PATH or "
                     "farblk://HOST/NAME",
                     text);
        return NULL;
    }
    for (size_t i = 0; (driver = farblk_driver(i)) != NULL; i++) {
        if (has_word(driver->schemes, text, length))
            return driver;
        if (used < sizeof known)
            used += (size_t)snprintf(known + used, sizeof known - used, " %s",
                                     driver->schemes);
    }
    nbdkit_error("unknown scheme \"%.*s\"; known are:%s", (int)length, text,
                 known);
    return NULL;
}

/* Each parameter of the URI is one that the driver has. */
static int
check_params(const char *text, const struct farblk_driver_info *driver)
{
    const char *at = strchr(text, '?');
    while (at != NULL) {
        size_t length = strcspn(++at, "=&");
        const char *line = driver->parameters;
        while (*line != '\0'
               && (strcspn(line, "=") != length
                   || strncmp(line, at, length) != 0)) {
            line += strcspn(line, "\n");
            line += *line == '\n';
        }
        if (*line == '\0') {
            nbdkit_error("%s devices have no parameter \"%.*s\"; they have:\n"
                         "%s",
                         driver->name, (int)length, at, driver->parameters);
            return -1;
        }
        at = strchr(at, '&');
    }
    return 0;
}

/* -------------------------------------------------------------------- paths */

/* The first octet of a relative path in the URI: that of a file:, or the value
 * of socket=.  NULL: none. */
static const char *
find_relative(const char *text)
{
    const char *path = NULL, *at = strchr(text, '?');
    if (strncasecmp(text, "file:", 5) == 0 && text[5] != '/'
        && strncasecmp(text + 5, "%2F", 3) != 0)
        return text + 5;
    for (; at != NULL && path == NULL; at = strchr(at, '&'))
        if (strncmp(++at, "socket=", 7) == 0)
            path = at + 7;
    if (path == NULL || *path == '/' || strncasecmp(path, "%2F", 3) == 0)
        return NULL;
    return path;
}

/* The URI with the present directory in it, where it has a relative path. */
static int
make_absolute(char **text)
{
    char directory[PATH_MAX];
    char *whole = NULL;
    size_t size = 0;
    const char *relative = find_relative(*text);
    if (relative == NULL)
        return 0;
    if (getcwd(directory, sizeof directory) == NULL) {
        nbdkit_error("getcwd: %m");
        return -1;
    }
    FILE *out = open_memstream(&whole, &size);
    if (out == NULL) {
        nbdkit_error("open_memstream: %m");
        return -1;
    }
    fwrite(*text, 1, (size_t)(relative - *text), out);
    for (const char *c = directory; *c != '\0'; c++)
        if (strchr(",?#%&", *c) != NULL)
            fprintf(out, "%%%02X", (unsigned char)*c);
        else
            fputc(*c, out);
    fprintf(out, "/%s", relative);
    if (fclose(out) != 0) {
        nbdkit_error("no memory for a URI");
        free(whole);
        return -1;
    }
    free(*text);
    *text = whole;
    return 0;
}

/* ---------------------------------------------------------------- servers */

/* Where a device's name belongs in a server's URI: behind SCHEME://HOST, where
 * at most a slash stands.  NULL: it is no server's URI. */
static const char *
name_place(const char *text)
{
    const char *host = strstr(text, "://");
    if (host == NULL)
        return NULL;
    const char *end = host + 3 + strcspn(host + 3, "/?#");
    const char *rest = end + (*end == '/');
    return *rest == '\0' || *rest == '?' ? end : NULL;
}

int
config_check(void)
{
    char **text = uri != NULL ? &uri : &server;
    if ((uri != NULL) == (server != NULL)) {
        nbdkit_error("give either uri=URI, a device, or server=URI, all "
                     "devices behind a server");
        return -1;
    }
    const struct farblk_driver_info *driver = find_driver(*text);
    if (driver == NULL || check_params(*text, driver) != 0)
        return -1;
    if (server != NULL && name_place(server) == NULL) {
        nbdkit_error("server=%s: must be a server, as in farblk://HOST or "
                     "farblk+unix:///?socket=PATH; uri= is for a device",
                     server);
        return -1;
    }
    return make_absolute(text);
}

static bool
name_valid(const char *name)
{
    static const char fine[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                               "abcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t length = strnlen(name, NAME_MAX_LENGTH + 1);
    return length > 0 && length <= NAME_MAX_LENGTH
           && strspn(name, fine) == length;
}

char *
config_device(const char *export_name)
{
    char *text = NULL;
    if (server == NULL) {
        text = strdup(uri);
        if (text == NULL)
            nbdkit_error("strdup: %m");
        return text;
    }
    if (!name_valid(export_name)) {
        nbdkit_error(*export_name == '\0'
                         ? "the client chose no export, and the server does "
                           "not have just one device"
                         : "the client chose an export whose name is not of "
                           "1 ... 255 letters, digits, '.', '_' and '-'");
        return NULL;
    }
    const char *place = name_place(server);
    const char *rest = place + (*place == '/');
    if (asprintf(&text, "%.*s/%s%s", (int)(place - server), server, export_name,
                 rest)
        < 0) {
        nbdkit_error("no memory for a URI");
        return NULL;
    }
    return text;
}
