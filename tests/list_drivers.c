/* SPDX-License-Identifier: ISC */
/*
 * Print what farblk_driver() tells, one word a line, for check_docs.sh:
 * "driver NAME NAME", "scheme NAME SCHEME", "parameter NAME PARAMETER".
 */
#include "farblk/farblk.h"

#include <stdio.h>
#include <string.h>

int
main(void)
{
    const struct farblk_driver_info *driver;

    for (size_t i = 0; (driver = farblk_driver(i)) != NULL; i++) {
        printf("driver %s %s\n", driver->name, driver->name);
        for (const char *at = driver->schemes; *at != '\0';) {
            size_t length = strcspn(at, " ");
            printf("scheme %s %.*s\n", driver->name, (int)length, at);
            at += length;
            at += strspn(at, " ");
        }
        for (const char *at = driver->parameters; *at != '\0';) {
            printf("parameter %s %.*s\n", driver->name, (int)strcspn(at, "="),
                   at);
            at += strcspn(at, "\n");
            at += strspn(at, "\n");
        }
    }
    return 0;
}
