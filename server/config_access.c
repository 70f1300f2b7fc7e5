/* SPDX-License-Identifier: ISC */
/*
 * Options on who may do what: users and groups by name or number, and what
 * exports ask for.
 *
 * A peer's kernel tells its user and its primary group, and nothing of other
 * groups.  So whoever the system's database lists as a member of a group that is
 * allowed is allowed by that, as of now.
 */
#include "server/config_kind.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_LENGTH 64

/* A decimal number that an id can be; (uint32_t)-1 is none. */
static bool
config_parse_id(const char *text, uint32_t *id)
{
    char *end;
    if (text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    *id = (uint32_t)number;
    return errno == 0 && *end == '\0' && number < UINT32_MAX;
}

static bool
config_find_user(const char *word, const char *name, struct config_owner *owner,
                 const struct place *place)
{
    uint32_t id;
    bool number = config_parse_id(name, &id);
    const struct passwd *user = number ? getpwuid((uid_t)id) : getpwnam(name);
    if (user == NULL && !number)
        return config_complain(place, "%s: there is no user \"%s\"", word,
                               name);
    owner->uid = user != NULL ? user->pw_uid : id;
    owner->has_gid = user != NULL;
    owner->gid = user != NULL ? user->pw_gid : 0;
    snprintf(owner->name, sizeof owner->name, "%s",
             user != NULL ? user->pw_name : "");
    return true;
}

static bool
config_find_group(const char *word, const char *name, uint32_t *gid,
                  const struct place *place)
{
    if (config_parse_id(name, gid))
        return true;
    const struct group *group = getgrnam(name);
    if (group == NULL)
        return config_complain(place, "%s: there is no group \"%s\"", word,
                               name);
    *gid = group->gr_gid;
    return true;
}

bool
config_find_owner(const char *word, const char *text,
                  struct config_owner *owner, const struct place *place)
{
    char name[NAME_LENGTH];
    size_t length = strcspn(text, ":");
    if (length == 0 || length >= sizeof name
        || (text[length] == ':' && text[length + 1] == '\0'))
        return config_complain(place, "%s: \"%s\" is not USER[:GROUP]", word,
                               text);
    snprintf(name, sizeof name, "%.*s", (int)length, text);
    if (!config_find_user(word, name, owner, place))
        return false;
    if (text[length] == ':') {
        owner->has_gid = true;
        if (!config_find_group(word, text + length + 1, &owner->gid, place))
            return false;
    }
    owner->given = true;
    if (!owner->has_gid)
        return config_complain(place,
                               "%s: user %u is in no database: say its group, "
                               "as %u:GROUP",
                               word, owner->uid, owner->uid);
    return true;
}

/* ------------------------------------------------------------ exports */

static bool
config_add_id(uint32_t **ids, size_t *count, uint32_t id,
              const struct place *place)
{
    uint32_t *more = realloc(*ids, (*count + 1) * sizeof *more);
    if (more == NULL)
        return config_no_memory(place);
    more[(*count)++] = id;
    *ids = more;
    return true;
}

/* The group, and those who are its members by the database. */
static bool
config_allow_group(struct config_export *export, uint32_t gid,
                   const struct place *place)
{
    if (!config_add_id(&export->gids, &export->gid_count, gid, place))
        return false;
    const struct group *group = getgrgid((gid_t)gid);
    for (char **member = group != NULL ? group->gr_mem : NULL;
         member != NULL && *member != NULL; member++) {
        const struct passwd *user = getpwnam(*member);
        if (user != NULL
            && !config_add_id(&export->uids, &export->uid_count, user->pw_uid,
                              place))
            return false;
    }
    return true;
}

/* One "OPTION=VALUE" behind the URI. */
static bool
config_set_export_option(struct config_export *export, const char *word,
                         char *option, const struct place *place)
{
    struct config_owner owner = {0};
    uint32_t gid;
    char *value = strchr(option, '=');
    if (value == NULL || value[1] == '\0')
        return config_complain(place,
                               "%s: \"%s\" is not OPTION=VALUE (a comma in a "
                               "URI is written %%2C)",
                               word, option);
    *value++ = '\0';
    if (strcmp(option, "allow-uid") == 0)
        return config_find_user(word, value, &owner, place)
               && config_add_id(&export->uids, &export->uid_count, owner.uid,
                                place);
    if (strcmp(option, "allow-gid") == 0)
        return config_find_group(word, value, &gid, place)
               && config_allow_group(export, gid, place);
    if (strcmp(option, "token-file") == 0) {
        if (export->token_file != NULL)
            return config_complain(place, "%s: token-file is given twice",
                                   word);
        export->token_file = strdup(value);
        return export->token_file != NULL || config_no_memory(place);
    }
    return config_complain(place,
                           "%s: unknown option \"%s\"; known are allow-uid, "
                           "allow-gid and token-file (a comma in a URI is "
                           "written %%2C)",
                           word, option);
}

bool
config_add_export(struct config *config, const char *word, const char *text,
                  const struct place *place)
{
    const char *equals = strchr(text, '=');
    if (equals == NULL || equals == text || equals[1] == '\0'
        || equals[1] == ',')
        return config_complain(place, "%s: \"%s\" is not NAME=URI", word, text);
    struct config_export *exports =
        realloc(config->exports, (config->export_count + 1) * sizeof *exports);
    if (exports == NULL)
        return config_no_memory(place);
    config->exports = exports;
    struct config_export *export = &exports[config->export_count++];
    *export = (struct config_export){0};
    export->name = strndup(text, (size_t)(equals - text));
    export->uri = strdup(equals + 1);
    if (export->name == NULL || export->uri == NULL)
        return config_no_memory(place);
    char *rest = export->uri;
    strsep(&rest, ",");
    for (char *option; (option = strsep(&rest, ",")) != NULL;)
        if (!config_set_export_option(export, word, option, place))
            return false;
    return true;
}

void
config_free_exports(struct config *config)
{
    for (size_t i = 0; i < config->export_count; i++) {
        struct config_export *export = &config->exports[i];
        free(export->name);
        free(export->uri);
        free(export->token_file);
        free(export->uids);
        free(export->gids);
    }
    free(config->exports);
}
