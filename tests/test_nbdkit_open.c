/* SPDX-License-Identifier: ISC */
/*
 * The nbdkit plugin: which parameters it takes, and when it opens and closes
 * which device.
 */
#include "tests/nbdkit_hand.h"

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/* ----------------------------------------------------- open and close */

static void
connections_share_a_device_that_the_last_one_closes(void **state)
{
    void *a = hand_begin();
    void *b = hand_connect();
    (void)state;
    assert_int_equal(hand.opens, 1);
    assert_string_equal(hand.devices[0].uri, "file:/d");
    assert_false(hand.devices[0].read_only);
    plugin->close(a);
    assert_true(hand.devices[0].open);
    assert_int_equal(plugin->flush(b, 0), 0);
    assert_ptr_equal(hand.dev, &hand.devices[0]);
    plugin->close(b);
    assert_false(hand.devices[0].open);
    a = hand_connect();
    assert_int_equal(hand.opens, 2);
    plugin->close(a);
    assert_false(hand.devices[1].open);
}

static void
read_only_connections_have_a_read_only_device(void **state)
{
    void *a = hand_begin();
    void *b = plugin->open(1);
    (void)state;
    assert_non_null(b);
    assert_int_equal(hand.opens, 2);
    assert_true(hand.devices[1].read_only);
    plugin->close(a);
    plugin->close(b);
}

static void
what_the_device_is_now_is_asked_for_each_connection(void **state)
{
    void *a = hand_begin();
    (void)state;
    hand.info.size_sectors = 4096;
    void *b = hand_connect();
    assert_int_equal(plugin->get_size(a), 1 << 20);
    assert_int_equal(plugin->get_size(b), 2 << 20);
    plugin->close(a);
    plugin->close(b);
}

static void
a_lost_device_stays_with_those_who_have_it(void **state)
{
    void *a = hand_begin();
    void *b = hand_connect();
    (void)state;
    hand.devices[0].gone = true;
    void *c = hand_connect();
    void *d = hand_connect();
    assert_int_equal(hand.opens, 2);
    plugin->flush(b, 0);
    assert_ptr_equal(hand.dev, &hand.devices[0]);
    plugin->flush(d, 0);
    assert_ptr_equal(hand.dev, &hand.devices[1]);
    plugin->close(a);
    assert_true(hand.devices[0].open);
    plugin->close(b);
    assert_false(hand.devices[0].open);
    assert_true(hand.devices[1].open);
    plugin->close(c);
    plugin->close(d);
    assert_false(hand.devices[1].open);
}

static void
a_kept_device_stays_open_until_it_is_lost(void **state)
{
    (void)state;
    assert_int_equal(plugin->config("keep", "true"), 0);
    plugin->close(hand_begin());
    assert_true(hand.devices[0].open);
    plugin->close(hand_connect());
    assert_int_equal(hand.opens, 1);
    hand.devices[0].gone = true;
    void *c = hand_connect();
    assert_false(hand.devices[0].open);
    assert_int_equal(hand.opens, 2);
    plugin->close(c);
    assert_true(hand.devices[1].open);
    plugin->cleanup();
    assert_false(hand.devices[1].open);
}

static void
a_device_that_can_not_be_opened_or_asked_is_told(void **state)
{
    (void)state;
    hand_configure("uri", "file:/d");
    hand.open_status = FARBLK_IO;
    assert_null(plugin->open(0));
    hand_said("the library's text (IO)");
    hand.open_status = 0;
    hand.status = FARBLK_IO;
    assert_null(plugin->open(0));
    hand_said("the completion's text (IO)");
    assert_false(hand.devices[0].open);
    hand.status = 0;
    void *c = hand_connect();
    hand.status = FARBLK_IO;
    assert_null(plugin->open(0));
    hand.status = 0;
    assert_int_equal(hand.opens, 2);
    plugin->close(c);
}

static void
the_end_closes_what_nbdkit_did_not(void **state)
{
    void *c = hand_begin();
    (void)state;
    plugin->cleanup();
    assert_false(hand.devices[0].open);
    free(c);
}

/* ------------------------------------------------------------- servers */

static void
a_servers_devices_are_chosen_by_name(void **state)
{
    static const struct {
        const char *server, *name, *uri;
    } table[] = {
        {"farblk://h", "a", "farblk://h/a"},
        {"farblk://h:7/", "A.b_c-9", "farblk://h:7/A.b_c-9"},
        {"farblk://[::1]:7?timeout=9", "a", "farblk://[::1]:7/a?timeout=9"},
        {"farblk+unix:///?socket=/x/y", "d", "farblk+unix:///d?socket=/x/y"},
        {"farblk+unix://?socket=/x", "d", "farblk+unix:///d?socket=/x"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        hand_configure("server", table[i].server);
        hand.export_name = table[i].name;
        plugin->close(hand_connect());
        assert_string_equal(hand.devices[i].uri, table[i].uri);
        plugin->unload();
    }
}

static void
names_that_no_device_can_have_open_nothing(void **state)
{
    static char longest[256], longer[257];
    static const char *const names[] = {
        "a/b", "..%2f", "a?ro=0", "a b", "\xc3\xa4", "a\n", "a&b", "#", longer,
    };
    (void)state;
    memset(longest, 'x', sizeof longest - 1);
    memset(longer, 'x', sizeof longer - 1);
    hand_configure("server", "farblk://h");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        hand.export_name = names[i];
        assert_null(plugin->open(0));
        hand_said("255 letters");
    }
    hand.export_name = "";
    assert_null(plugin->open(0));
    hand_said("chose no export");
    assert_int_equal(hand.opens, 0);
    hand.export_name = longest;
    plugin->close(hand_connect());
}

static void
exports_are_listed_with_what_they_are(void **state)
{
    (void)state;
    hand_configure("server", "farblk://h");
    hand.exports[0] = "a";
    hand.exports[1] = "b";
    assert_int_equal(plugin->list_exports(0, 0, NULL), 0);
    assert_int_equal(hand.listed, 2);
    assert_string_equal(hand.list[0], "a: 7 sectors of 512 octets");
    assert_string_equal(hand.list[1], "b: 7 sectors of 512 octets, read-only");
    hand.list_status = FARBLK_IO;
    assert_int_equal(plugin->list_exports(0, 0, NULL), -1);
    hand_said("the library's text (IO)");
}

static void
the_only_device_is_the_default(void **state)
{
    (void)state;
    hand_configure("server", "farblk://h");
    assert_null(plugin->default_export(0, 0));
    hand.exports[0] = "a";
    assert_string_equal(plugin->default_export(0, 0), "a");
    hand.exports[1] = "b";
    assert_null(plugin->default_export(0, 0));
    hand.exports[2] = "c";
    assert_null(plugin->default_export(0, 0));
    hand.exports[1] = NULL;
    hand.list_status = FARBLK_IO;
    assert_null(plugin->default_export(0, 0));
}

static void
one_device_has_whatever_name_the_client_likes(void **state)
{
    (void)state;
    hand_configure("uri", "file:/d");
    assert_string_equal(plugin->default_export(0, 0), "");
    assert_int_equal(plugin->list_exports(0, 0, NULL), 0);
    assert_string_equal(hand.list[0], ": default");
    hand.export_name = "../any thing";
    plugin->close(hand_connect());
    assert_string_equal(hand.devices[0].uri, "file:/d");
}

/* ---------------------------------------------------------- parameters */

static void
wrong_parameters_are_refused_and_named(void **state)
{
    static const struct {
        const char *key, *value, *text;
    } table[] = {
        {"uri", "disk.img", "\"disk.img\" is no URI"},
        {"uri", "", "\"\" is no URI"},
        {"uri", "fil:x", "unknown scheme \"fil\"; known are: file farblk+unix"},
        {"uri", "unix:x", "unknown scheme \"unix\""},
        {"uri", ":x", "unknown scheme \"\""},
        {"uri", "file:x?crate=1", "no parameter \"crate\""},
        {"uri", "file:x?create=1&siz=1", "no parameter \"siz\""},
        {"uri", "file:x?create", NULL},
        {"uri", "file:x?", "no parameter \"\""},
        {"uri", "file:x?size=1&", "no parameter \"\""},
        {"server", "farblk://h/a", "must be a server"},
        {"server", "farblk:h", "must be a server"},
        {"server", "farblk://h?host=a", "no parameter \"host\""},
        {"server", "farblk+unix:///?socket=", NULL},
        {"keep", "true", "give either uri=URI"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        assert_int_equal(plugin->config(table[i].key, table[i].value), 0);
        int status = plugin->config_complete();
        if (table[i].text != NULL) {
            assert_int_equal(status, -1);
            hand_said(table[i].text);
        } else {
            assert_int_equal(status, 0);
        }
        plugin->unload();
    }
    assert_int_equal(plugin->config_complete(), -1);
    hand_said("give either uri=URI");
    assert_int_equal(plugin->config("disk", "x"), -1);
    hand_said("unknown parameter \"disk\"; known are: uri server keep");
    assert_int_equal(plugin->config("keep", "perhaps"), -1);
    assert_int_equal(plugin->config("keep", "false"), 0);
    assert_int_equal(plugin->config("keep", "false"), -1);
    hand_said("keep= is given twice");
    assert_int_equal(plugin->config("uri", "file:a"), 0);
    assert_int_equal(plugin->config("uri", "file:a"), -1);
    hand_said("uri= is given twice");
    assert_int_equal(plugin->config("server", "farblk://h"), 0);
    assert_int_equal(plugin->config_complete(), -1);
    hand_said("give either uri=URI");
    assert_int_equal(hand.opens, 0);
}

static void
relative_paths_begin_where_nbdkit_was_started(void **state)
{
    static const struct {
        const char *key, *given, *before, *after;
    } table[] = {
        {"uri", "file:a/b?size=1", "file:", "/a/b?size=1"},
        {"uri", "FILE:a", "FILE:", "/a"},
        {"uri", "file:/a", NULL, "file:/a"},
        {"uri", "file:%2fa", NULL, "file:%2fa"},
        {"uri", "farblk+unix:///a?timeout=1&socket=s",
         "farblk+unix:///a?timeout=1&socket=", "/s"},
        {"uri", "farblk+unix:///a?socket=/s", NULL,
         "farblk+unix:///a?socket=/s"},
        {"server", "farblk+unix:///?socket=s&timeout=1",
         "farblk+unix:///x?socket=", "/s&timeout=1"},
    };
    char before[256], directory[] = "/tmp/nbdkit,?#%&-XXXXXX";
    char encoded[256], wanted[1024];
    (void)state;
    assert_non_null(getcwd(before, sizeof before));
    assert_non_null(mkdtemp(directory));
    assert_int_equal(chdir(directory), 0);
    snprintf(encoded, sizeof encoded, "/tmp/nbdkit%%2C%%3F%%23%%25%%26%s",
             strchr(directory, '-'));
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        hand_configure(table[i].key, table[i].given);
        assert_int_equal(chdir("/"), 0);
        hand.export_name = "x";
        plugin->close(hand_connect());
        snprintf(wanted, sizeof wanted, "%s%s%s",
                 table[i].before != NULL ? table[i].before : "",
                 table[i].before != NULL ? encoded : "", table[i].after);
        assert_string_equal(hand.devices[i].uri, wanted);
        plugin->unload();
        assert_int_equal(chdir(directory), 0);
    }
    assert_int_equal(chdir(before), 0);
    assert_int_equal(rmdir(directory), 0);
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, hand_setup, hand_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(connections_share_a_device_that_the_last_one_closes),
        TEST(read_only_connections_have_a_read_only_device),
        TEST(what_the_device_is_now_is_asked_for_each_connection),
        TEST(a_lost_device_stays_with_those_who_have_it),
        TEST(a_kept_device_stays_open_until_it_is_lost),
        TEST(a_device_that_can_not_be_opened_or_asked_is_told),
        TEST(the_end_closes_what_nbdkit_did_not),
        TEST(a_servers_devices_are_chosen_by_name),
        TEST(names_that_no_device_can_have_open_nothing),
        TEST(exports_are_listed_with_what_they_are),
        TEST(the_only_device_is_the_default),
        TEST(one_device_has_whatever_name_the_client_likes),
        TEST(wrong_parameters_are_refused_and_named),
        TEST(relative_paths_begin_where_nbdkit_was_started),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
