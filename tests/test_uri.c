/* SPDX-License-Identifier: ISC */
/*
 * URIs of devices and names: what they mean, and what is refused.
 */
#include "core/error.h"
#include "core/uri.h"
#include "tests/support.h"

#include <stdlib.h>
#include <string.h>

static const struct uri_param params[] = {
    {.name = "sector", .kind = URI_NUMBER, .min = 512, .max = 65536},
    {.name = "size", .kind = URI_SIZE, .max = INT64_MAX},
    {.name = "engine", .kind = URI_CHOICE, .choices = "auto|uring|pool"},
    {.name = "socket", .kind = URI_STRING},
    {.name = NULL},
};

static int
parse(const char *text, struct uri *uri, struct error *error)
{
    error_clear(error);
    return uri_parse(text, params, uri, error);
}

static void
a_path_is_taken_as_it_is_and_decoded(void **state)
{
    (void)state;
    struct uri uri;
    struct error error;
    assert_int_equal(parse("FILE:/a%20b/c%2Cd?sector=4096&ro=1", &uri, &error),
                     0);
    assert_string_equal(uri.scheme, "file");
    assert_string_equal(uri.path, "/a b/c,d");
    assert_false(uri.has_authority);
    assert_int_equal(uri_number(&uri, "sector", 0), 4096);
    assert_true(uri_bool(&uri, "ro", false));
    assert_false(uri_bool(&uri, "sync", false));
    uri_free(&uri);
}

static void
an_authority_has_host_and_port(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host, *path;
        unsigned port;
    } cases[] = {
        {"farblk://host:77/disk", "host", "disk", 77},
        {"farblk://host/disk", "host", "disk", 0},
        {"farblk://host", "host", "", 0},
        {"farblk://[::1]:5660/d", "::1", "d", 5660},
        {"farblk+unix:///d?socket=/run/x", "", "d", 0},
        {"farblk://10.0.0.1:1/", "10.0.0.1", "", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct uri uri;
        struct error error;
        assert_int_equal(parse(cases[i].text, &uri, &error), 0);
        assert_true(uri.has_authority);
        assert_string_equal(uri.host, cases[i].host);
        assert_string_equal(uri.path, cases[i].path);
        assert_int_equal(uri.port, cases[i].port);
        uri_free(&uri);
    }
}

static void
malformed_uris_are_invalid_and_say_why(void **state)
{
    (void)state;
    static const struct {
        const char *text, *say;
    } cases[] = {
        {"", "scheme"},
        {"nothing", "scheme"},
        {":x", "scheme"},
        {"9p:x", "scheme"},
        {"file:/x?sector", "has no value"},
        {"file:/x?sector=", "not a decimal"},
        {"file:/x?sector=1e3", "not a decimal"},
        {"file:/x?sector=-512", "not a decimal"},
        {"file:/x?sector=511", "512 ... 65536"},
        {"file:/x?sector=65537", "512 ... 65536"},
        {"file:/x?sector=99999999999999999999", "not a decimal"},
        {"file:/x?size=12q", "not a size"},
        {"file:/x?size=16E", "not a size"},
        {"file:/x?size=8E", "must be"},
        {"file:/x?engine=fast", "auto|uring|pool"},
        {"file:/x?ro=yes", "0 or 1"},
        {"file:/x?ro=1&ro=1", "twice"},
        {"file:/x?socket=", "empty"},
        {"file:/x?shape=2", "known are: sector size engine socket ro"},
        {"file:/x?", "unknown parameter"},
        {"file:/x#y", "%23"},
        {"file:/x,y", "%2C"},
        {"file:/x%2", "hexadecimal"},
        {"file:/x%zz", "hexadecimal"},
        {"file:/x%00y", "NUL"},
        {"farblk://host:0/d", "65535"},
        {"farblk://host:65536/d", "65535"},
        {"farblk://host:x/d", "65535"},
        {"farblk://host:/d", "65535"},
        {"farblk://[::1/d", "without ]"},
        {"farblk://-o Proxy/d", "no host"},
        {"farblk://a$(b)/d", "no host"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct uri uri;
        struct error error;
        assert_int_equal(parse(cases[i].text, &uri, &error), FARBLK_INVALID);
        if (strstr(error.text, cases[i].say) == NULL)
            fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].text,
                     error.text, cases[i].say);
    }
}

static void
an_endless_uri_is_refused_before_it_is_copied(void **state)
{
    (void)state;
    char *text = malloc(1 << 20);
    struct uri uri;
    struct error error;
    assert_non_null(text);
    memset(text, 'a', 1 << 20);
    memcpy(text, "file:", 5);
    text[(1 << 20) - 1] = '\0';
    assert_int_equal(parse(text, &uri, &error), FARBLK_INVALID);
    free(text);
}

static void
names_are_of_a_small_alphabet_and_length(void **state)
{
    (void)state;
    char name[300];
    assert_true(uri_name_valid("Disk-0_a.img"));
    assert_false(uri_name_valid(""));
    assert_false(uri_name_valid("a/b"));
    assert_false(uri_name_valid("a b"));
    assert_false(uri_name_valid("\xc3\xa4"));
    memset(name, 'x', sizeof name);
    name[255] = '\0';
    assert_true(uri_name_valid(name));
    name[255] = 'x';
    name[256] = '\0';
    assert_false(uri_name_valid(name));
}

static void
files_are_locked_by_uri_unless_they_say(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"file:a", "file:a?lock=1"},
        {"file:a?", "file:a?lock=1"},
        {"file:a?ro=1", "file:a?ro=1&lock=1"},
        {"FILE:a?ro=1", "FILE:a?ro=1&lock=1"},
        {"file:a?lock=0", "file:a?lock=0"},
        {"file:a?ro=1&lock=1", "file:a?ro=1&lock=1"},
        {"file:a?unlock=1", "file:a?unlock=1&lock=1"},
        {"ramdisk:a", "ramdisk:a"},
        {"nonsense", "nonsense"},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char *locked = uri_locked(pairs[i][0]);
        assert_non_null(locked);
        assert_string_equal(locked, pairs[i][1]);
        free(locked);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_path_is_taken_as_it_is_and_decoded),
        cmocka_unit_test(an_authority_has_host_and_port),
        cmocka_unit_test(malformed_uris_are_invalid_and_say_why),
        cmocka_unit_test(an_endless_uri_is_refused_before_it_is_copied),
        cmocka_unit_test(names_are_of_a_small_alphabet_and_length),
        cmocka_unit_test(files_are_locked_by_uri_unless_they_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
