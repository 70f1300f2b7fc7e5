/* SPDX-License-Identifier: ISC */
/*
 * Messages, and numbers as people read them.  Text may come from a server or
 * a file's name, so nothing that a terminal would act upon is passed on.
 */
#include "tools/text.h"

#include "tools/tool.h"

#include <langinfo.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

const char *tool_name = "";

const char *
text_size(uint64_t octets, char *buffer)
{
    static const char *const units[] = {"",     " KiB", " MiB", " GiB",
                                        " TiB", " PiB", " EiB"};
    size_t unit = 0;
    uint64_t scale = 1;

    while (unit < 6 && octets / scale >= 1024) {
        scale *= 1024;
        unit++;
    }
    if (octets % scale == 0)
        snprintf(buffer, TEXT_SHORT, "%llu%s",
                 (unsigned long long)(octets / scale), units[unit]);
    else
        snprintf(buffer, TEXT_SHORT, "%.1f%s", (double)octets / (double)scale,
                 units[unit]);
    return buffer;
}

const char *
text_time(double seconds, char *buffer)
{
    uint64_t all = seconds < 0     ? 0
                   : seconds > 1e9 ? 1000000000u
                                   : (uint64_t)(seconds + 0.5);
    unsigned long long hours = all / 3600, minutes = all / 60 % 60;

    if (hours > 0)
        snprintf(buffer, TEXT_SHORT, "%llu:%02llu:%02llu", hours, minutes,
                 (unsigned long long)(all % 60));
    else
        snprintf(buffer, TEXT_SHORT, "%llu:%02llu", minutes,
                 (unsigned long long)(all % 60));
    return buffer;
}

void
text_print(FILE *file, const char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;

        putc(c < 0x20 || c == 0x7f ? '?' : c, file);
    }
}

unsigned
text_columns(int fd)
{
    struct winsize size;

    if (ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        return 80;
    return size.ws_col;
}

bool
text_utf8(void)
{
    return strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

double
text_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* "farblk COMMAND: text" without the end of the line. */
__attribute__((format(printf, 1, 0))) static void
text_message(const char *format, va_list arguments)
{
    char text[FARBLK_TEXT_MAX + 1024];

    vsnprintf(text, sizeof text, format, arguments);
    fflush(stdout);
    fprintf(stderr, "farblk%s%s: ", *tool_name != '\0' ? " " : "", tool_name);
    text_print(stderr, text);
}

int
tool_fail(int status, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    text_message(format, arguments);
    va_end(arguments);
    fprintf(stderr, " (%s)\n", farblk_status_name(status));
    return TOOL_FAILED;
}

int
tool_fail_last(int status, const char *what)
{
    /* The text is valid until this thread's next call into the library. */
    char text[FARBLK_TEXT_MAX];

    snprintf(text, sizeof text, "%s", farblk_last_text());
    if (what != NULL)
        return tool_fail(status, "%s: %s", what, text);
    return tool_fail(status, "%s", text);
}

int
tool_fail_errno(int errnum, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    text_message(format, arguments);
    va_end(arguments);
    fprintf(stderr, ": %s\n", strerror(errnum));
    return TOOL_FAILED;
}

void
tool_note(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    text_message(format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

int
tool_usage(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    text_message(format, arguments);
    va_end(arguments);
    fprintf(stderr, "\ntry: farblk %s%s--help\n", tool_name,
            *tool_name != '\0' ? " " : "");
    return TOOL_USAGE;
}
