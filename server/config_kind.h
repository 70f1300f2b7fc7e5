/* SPDX-License-Identifier: ISC */
/*
 * What the parts of the configuration share: config.c (words, the command line,
 * the file) and config_access.c (who may do what).
 */
#ifndef FARBLK_SERVER_CONFIG_KIND_H
#define FARBLK_SERVER_CONFIG_KIND_H

#include "server/config.h"

/* Where a value was found, for messages. */
struct place {
    const char *file; /* NULL: the command line */
    unsigned line;
    unsigned depth;
};

/* One line on stderr; false. */
bool config_complain(const struct place *place, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
bool config_no_memory(const struct place *place);

/* NAME=URI[,OPTION=VALUE ...] */
bool config_add_export(struct config *config, const char *word,
                       const char *text, const struct place *place);
/* USER[:GROUP], names or numbers; the group is the user's unless given. */
bool config_find_owner(const char *word, const char *text,
                       struct config_owner *owner, const struct place *place);
/* Free what config_add_export() has made. */
void config_free_exports(struct config *config);

#endif
