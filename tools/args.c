/* SPDX-License-Identifier: ISC */
/*
 * Options by table.  getopt_long is not used: here the table that parses is
 * the table that --help prints, so the two can not differ.
 */
#include "tools/args.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static bool
args_number(const char *text, uint64_t *number, const char **end)
{
    uint64_t value = 0;

    if (!isdigit((unsigned char)*text))
        return false;
    for (; isdigit((unsigned char)*text); text++)
        if (__builtin_mul_overflow(value, (uint64_t)10, &value)
            || __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
            return false;
    *number = value;
    *end = text;
    return true;
}

bool
args_size(const char *text, uint64_t *size)
{
    static const char letters[] = "kmgtpe";
    const char *letter;
    unsigned shift = 0;
    uint64_t value;

    if (!args_number(text, &value, &text))
        return false;
    if (*text != '\0') {
        letter = strchr(letters, tolower((unsigned char)*text));
        if (letter == NULL || text[1] != '\0')
            return false;
        shift = 10 * (unsigned)(letter - letters + 1);
    }
    if (shift > 0 && value >> (64 - shift) != 0)
        return false;
    *size = value << shift;
    return true;
}

static void
args_help_option(char letter, const char *name, const char *metavar,
                 const char *help)
{
    char left[64];

    snprintf(left, sizeof left, "%c%c%s--%s%s%s", letter != 0 ? '-' : ' ',
             letter != 0 ? letter : ' ', letter != 0 ? ", " : "  ", name,
             metavar != NULL ? " " : "", metavar != NULL ? metavar : "");
    printf("  %-25s %s\n", left, help);
}

static void
args_help(const struct command *command, const struct args_option *options)
{
    printf("farblk %s: %s\n\nusage: farblk %s [options] %s\n\noptions:\n",
           command->name, command->summary, command->name, command->operands);
    for (; options != NULL && options->name != NULL; options++)
        args_help_option(options->letter, options->name, options->metavar,
                         options->help);
    args_help_option('h', "help", NULL, "print this and exit");
    if (command->notes != NULL)
        printf("\n%s", command->notes);
    printf("\nexample:\n%s", command->example);
}

static const struct args_option *
args_find(const struct args_option *options, const char *word, size_t length)
{
    for (; options != NULL && options->name != NULL; options++)
        if (word[1] == '-') {
            if (strlen(options->name) == length - 2
                && memcmp(options->name, word + 2, length - 2) == 0)
                return options;
        } else if (options->letter != 0 && length == 2
                   && options->letter == word[1]) {
            return options;
        }
    return NULL;
}

/* Store `text` as the value of `option`. */
static int
args_store(const struct args_option *option, const char *text)
{
    const char *end;

    switch (option->kind) {
    case ARGS_FLAG:
        *(bool *)option->value = true;
        break;
    case ARGS_TEXT:
        *(const char **)option->value = text;
        break;
    case ARGS_SIZE:
        if (!args_size(text, option->value))
            return tool_usage("--%s: \"%s\" is not a size; sizes read as "
                              "512, 4k, 1M, 2G, 1T",
                              option->name, text);
        break;
    case ARGS_NUMBER:
        if (!args_number(text, option->value, &end) || *end != '\0')
            return tool_usage("--%s: \"%s\" is not a number", option->name,
                              text);
        break;
    }
    if (option->given != NULL)
        *option->given = true;
    return -1;
}

int
args_parse_some(const struct command *command, int argc, char **argv,
                const struct args_option *options, const char **operands,
                int count, int most, int *given)
{
    int found = 0, result;
    bool only_operands = false;

    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *equals, *value = NULL;
        const struct args_option *option;

        if (only_operands || word[0] != '-' || word[1] == '\0') {
            if (found == most)
                return tool_usage("unexpected \"%s\"; the operands are: %s",
                                  word, command->operands);
            operands[found++] = word;
            continue;
        }
        if (strcmp(word, "--") == 0) {
            only_operands = true;
            continue;
        }
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            args_help(command, options);
            return TOOL_FINE;
        }
        equals = word[1] == '-' ? strchr(word, '=') : NULL;
        option =
            args_find(options, word,
                      equals != NULL ? (size_t)(equals - word) : strlen(word));
        if (option == NULL)
            return tool_usage("unknown option \"%s\"", word);
        if (equals != NULL && option->kind == ARGS_FLAG)
            return tool_usage("--%s takes no value", option->name);
        if (equals != NULL)
            value = equals + 1;
        else if (option->kind != ARGS_FLAG) {
            if (i + 1 == argc)
                return tool_usage("--%s needs a value", option->name);
            value = argv[++i];
        }
        result = args_store(option, value);
        if (result >= 0)
            return result;
    }
    if (found < count)
        return tool_usage("missing operand; the operands are: %s",
                          command->operands);
    *given = found;
    return -1;
}

int
args_parse(const struct command *command, int argc, char **argv,
           const struct args_option *options, const char **operands, int count)
{
    int found;

    return args_parse_some(command, argc, argv, options, operands, count, count,
                           &found);
}
