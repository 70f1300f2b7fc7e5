/* SPDX-License-Identifier: ISC */
/*
 * The library's log: one line a call, sent to where farblk_set_log() said.
 * Lines never hold secrets; bytes from a peer go through error_copy_text()
 * before they come here.
 */
#ifndef FARBLK_CORE_LOG_H
#define FARBLK_CORE_LOG_H

#include "farblk/farblk.h"

/* Cheap when nobody listens at that level. */
void log_line(enum farblk_log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(FARBLK_LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(FARBLK_LOG_WARNING, __VA_ARGS__)
#define log_info(...) log_line(FARBLK_LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(FARBLK_LOG_DEBUG, __VA_ARGS__)

#endif
