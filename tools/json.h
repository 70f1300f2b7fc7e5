/* SPDX-License-Identifier: ISC */
/*
 * Writing JSON, piece by piece.  Each value has a key inside an object and
 * NULL inside an array or at the top.  A container opened with `lines` has one
 * member a line; the others stand on one line.
 */
#ifndef FARBLK_TOOLS_JSON_H
#define FARBLK_TOOLS_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define JSON_DEPTH 8

/* Zero it, set .file. */
struct json {
    FILE *file;
    unsigned depth;
    struct {
        char end;
        bool lines, filled;
    } level[JSON_DEPTH];
};

void json_object(struct json *json, const char *key, bool lines);
void json_array(struct json *json, const char *key, bool lines);
/* End the innermost container; after the outermost, end the line. */
void json_end(struct json *json);

void json_text(struct json *json, const char *key, const char *value);
void json_number(struct json *json, const char *key, uint64_t value);
void json_real(struct json *json, const char *key, double value);
void json_bool(struct json *json, const char *key, bool value);
void json_null(struct json *json, const char *key);

#endif
