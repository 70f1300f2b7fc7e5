/* SPDX-License-Identifier: ISC */
/*
 * What people and files say: URIs, by the tables of every driver, what the
 * farblk driver makes of them, and farblkd's options.  An input is a URI, a
 * configuration file and arguments, with zeros between them.  Nothing is opened:
 * all files that a configuration names are the one of the input.
 *
 * What must hold besides: values are within the bounds of their tables, and a
 * URL that the farblk driver makes of a URI has no host but the URI's.
 */
#include "client/client.h"
#include "core/driver.h"
#include "core/uri.h"
#include "server/config.h"
#include "tests/fuzz_frames.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARGUMENTS 32
#define INPUT_MAX 40000u

static const char *file_text; /* NULL: no input is being read */

FILE *__real_fopen(const char *path, const char *mode);
FILE *__wrap_fopen(const char *path, const char *mode);
int __wrap_fprintf(FILE *file, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* config.c reads what the input has, and complains to nobody. */
FILE *
__wrap_fopen(const char *path, const char *mode)
{
    if (file_text == NULL) /* an engine's */
        return __real_fopen(path, mode);
    return fmemopen((void *)(uintptr_t)file_text,
                    strlen(file_text) + (file_text[0] == '\0'), "r");
}

int
__wrap_fprintf(FILE *file, const char *format, ...)
{
    char text[4096];
    va_list args;
    va_start(args, format);
    int length = file_text == NULL ? vfprintf(file, format, args)
                                   : vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return length;
}

static void
wrong(const char *what)
{
    fputs(what, stderr);
    abort();
}

/* ------------------------------------------------------------ URIs */

static void
check_value(const struct uri_value *value)
{
    const struct uri_param *param = value->param;
    if (value->text == NULL)
        wrong("a value without a text\n");
    if ((param->kind == URI_NUMBER || param->kind == URI_SIZE)
        && (value->number < param->min
            || (param->max != 0 && value->number > param->max)))
        wrong("a value out of its bounds\n");
    if (param->kind == URI_BOOL && value->number > 1)
        wrong("neither 0 nor 1\n");
}

static void
check_client(const struct uri *uri)
{
    struct client *client;
    struct error error;
    if (client_create(uri, false, &client, &error) != 0)
        return;
    if (!uri_name_valid(client->name))
        wrong("a name that is none\n");
    const char *host = strstr(client->url, "://");
    if (host == NULL)
        wrong("no URL\n");
    host += 3;
    host += *host == '[';
    if (strncmp(client->url, "tcp", 3) == 0
        && strncmp(host, uri->host, strlen(uri->host)) != 0)
        wrong("another host\n");
    client_free(client);
}

static void
read_uri(const char *text)
{
    struct uri uri;
    struct error error;
    char scheme[32];
    uint64_t size;
    uri_parse_size(text, &size);
    uri_name_valid(text);
    if (uri_scheme(text, scheme, sizeof scheme, &error) != 0)
        return;
    for (size_t i = 0; drivers[i] != NULL; i++) {
        if (uri_parse(text, drivers[i]->params, &uri, &error) != 0)
            continue;
        if (uri.value_count > URI_PARAMS_MAX || uri.path == NULL
            || uri.host == NULL)
            wrong("a URI without its parts\n");
        for (size_t n = 0; n < uri.value_count; n++)
            check_value(&uri.value[n]);
        if (strcmp(drivers[i]->name, "farblk") == 0)
            check_client(&uri);
        uri_free(&uri);
    }
}

/* ------------------------------------------------------------ options */

static void
read_options(int argc, char **argv)
{
    struct config config;
    if (config_read(&config, argc, argv) && !config.help && !config.version) {
        const struct farblk_server_options *options = &config.server;
        if (config.listen_count == 0)
            wrong("nowhere to listen\n");
        if (options->ipc_mode > 0777 || options->max_payload > 64 << 20)
            wrong("an option out of its bounds\n");
        for (size_t i = 0; i < config.export_count; i++)
            if (config.exports[i].name[0] == '\0'
                || config.exports[i].uri[0] == '\0')
                wrong("an export without a name or URI\n");
    }
    config_fini(&config);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *argv[ARGUMENTS + 3] = {"farblkd"}, *text = malloc(size + 1);
    int argc = 1;
    if (text == NULL || size > INPUT_MAX) {
        free(text);
        return 0;
    }
    memcpy(text, data, size);
    text[size] = '\0';
    const char *end = text + size;
    char *at = text + strlen(text);
    read_uri(text);
    file_text = at < end ? at + 1 : "";
    at = (char *)(uintptr_t)file_text + strlen(file_text);
    for (; file_text[0] != '\0' && at < end && argc < ARGUMENTS;
         at += strlen(at))
        argv[argc++] = ++at;
    if (argc == 1) {
        argv[argc++] = "--config";
        argv[argc++] = "file";
    }
    read_options(argc, argv);
    file_text = NULL;
    free(text);
    return 0;
}
