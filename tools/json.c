/* SPDX-License-Identifier: ISC */
/*
 * JSON to a stream, with nothing held in memory.  Names of files may be any
 * octets: what is not UTF-8 becomes U+FFFD, so that the output always parses.
 */
#include "tools/json.h"

#include <stddef.h>

/* The length of the UTF-8 sequence at `text`, 0 when it is not one. */
static unsigned
json_sequence(const unsigned char *text)
{
    unsigned length;

    if (text[0] < 0x80)
        return 1;
    if (text[0] >= 0xc2 && text[0] <= 0xdf)
        length = 2;
    else if (text[0] >= 0xe0 && text[0] <= 0xef)
        length = 3;
    else if (text[0] >= 0xf0 && text[0] <= 0xf4)
        length = 4;
    else
        return 0;
    for (unsigned i = 1; i < length; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    /* Overlong forms, surrogates, beyond U+10FFFF. */
    if ((text[0] == 0xe0 && text[1] < 0xa0)
        || (text[0] == 0xed && text[1] > 0x9f)
        || (text[0] == 0xf0 && text[1] < 0x90)
        || (text[0] == 0xf4 && text[1] > 0x8f))
        return 0;
    return length;
}

static void
json_quote(struct json *json, const char *value)
{
    const unsigned char *text = (const unsigned char *)value;

    putc('"', json->file);
    while (*text != '\0') {
        unsigned length = json_sequence(text);

        if (length == 0) {
            fputs("\\ufffd", json->file);
            length = 1;
        } else if (*text == '"' || *text == '\\') {
            fprintf(json->file, "\\%c", *text);
        } else if (*text < 0x20 || *text == 0x7f) {
            fprintf(json->file, "\\u%04x", *text);
        } else {
            fwrite(text, 1, length, json->file);
        }
        text += length;
    }
    putc('"', json->file);
}

static void
json_new_line(struct json *json, unsigned depth)
{
    fprintf(json->file, "\n%*s", (int)(2 * depth), "");
}

/* What stands before a value. */
static void
json_begin(struct json *json, const char *key)
{
    if (json->depth > 0) {
        bool filled = json->level[json->depth - 1].filled;

        json->level[json->depth - 1].filled = true;
        if (filled)
            putc(',', json->file);
        if (json->level[json->depth - 1].lines)
            json_new_line(json, json->depth);
        else if (filled)
            putc(' ', json->file);
    }
    if (key != NULL) {
        json_quote(json, key);
        fputs(": ", json->file);
    }
}

static void
json_open(struct json *json, const char *key, bool lines, char begin, char end)
{
    json_begin(json, key);
    putc(begin, json->file);
    json->level[json->depth].end = end;
    json->level[json->depth].lines = lines;
    json->level[json->depth].filled = false;
    json->depth++;
}

void
json_object(struct json *json, const char *key, bool lines)
{
    json_open(json, key, lines, '{', '}');
}

void
json_array(struct json *json, const char *key, bool lines)
{
    json_open(json, key, lines, '[', ']');
}

void
json_end(struct json *json)
{
    json->depth--;
    if (json->level[json->depth].lines && json->level[json->depth].filled)
        json_new_line(json, json->depth);
    putc(json->level[json->depth].end, json->file);
    if (json->depth == 0)
        putc('\n', json->file);
}

void
json_text(struct json *json, const char *key, const char *value)
{
    json_begin(json, key);
    json_quote(json, value);
}

void
json_number(struct json *json, const char *key, uint64_t value)
{
    json_begin(json, key);
    fprintf(json->file, "%llu", (unsigned long long)value);
}

/* Not by %f, which writes the locale's decimal point. */
void
json_real(struct json *json, const char *key, double value)
{
    uint64_t millis = (uint64_t)(value * 1000 + 0.5);

    json_begin(json, key);
    fprintf(json->file, "%llu.%03u", (unsigned long long)(millis / 1000),
            (unsigned)(millis % 1000));
}

void
json_bool(struct json *json, const char *key, bool value)
{
    json_begin(json, key);
    fputs(value ? "true" : "false", json->file);
}

void
json_null(struct json *json, const char *key)
{
    json_begin(json, key);
    fputs("null", json->file);
}
