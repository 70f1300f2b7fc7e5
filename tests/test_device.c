/* SPDX-License-Identifier: ISC */
/*
 * What core tells a driver of its device's handles, and a driver tells core of
 * its device; over a driver held in the hand.
 */
#include "tests/held.h"
#include "tests/support.h"

#include <stdio.h>

static uint8_t buffer[SECTOR];
static struct iovec iov = {buffer, SECTOR};

static struct farblk *
device_handle(void)
{
    struct farblk *handle = NULL;
    struct error error;

    error_clear(&error);
    assert_int_equal(
        device_open(&held_driver, "fake:it", NULL, &handle, &error), 0);
    return handle;
}

static void
device_submit(struct farblk_queue *queue, struct farblk *dev, uint32_t op,
              uint32_t flags)
{
    ok(farblk_submit(queue, &(struct farblk_request){
                                .size = sizeof(struct farblk_request),
                                .op = op,
                                .flags = flags,
                                .dev = dev,
                                .iov = &iov,
                                .iovcnt = 1,
                            }));
}

static void
device_count_drained(void *arg)
{
    ++*(unsigned *)arg;
}

static void
last_handle_that_leaves_is_told_to_the_driver(void **state)
{
    struct farblk *one = device_handle(), *two = device_handle();
    struct farblk *three = device_handle();
    struct farblk_queue *queue;
    unsigned drained = 0;

    (void)state;
    ok(farblk_queue_create(4, &queue));
    held_shuts = held_last_shuts = 0;
    device_submit(queue, one, FARBLK_OP_READ, 0);
    device_submit(queue, two, FARBLK_OP_READ, 0);
    assert_int_equal(held_count, 2);
    handle_disconnect_async(one, device_count_drained, &drained);
    assert_int_equal(held_shuts, 1);
    assert_int_equal(held_last_shuts, 0);
    /* It goes idle and for good: those that are left count, not it. */
    ok(farblk_close(three));
    assert_int_equal(held_last_shuts, 0);
    three = device_handle();
    handle_disconnect_async(two, device_count_drained, &drained);
    assert_int_equal(held_shuts, 2);
    assert_int_equal(held_last_shuts, 0);
    /* The last one has nothing in flight, but leaves others that have. */
    handle_disconnect_async(three, device_count_drained, &drained);
    assert_int_equal(held_last_shuts, 1);
    assert_int_equal(drained, 1);
    io_done(held_take(0), 0);
    io_done(held_take(0), 0);
    assert_int_equal(drained, 3);
    ok(farblk_close(one));
    ok(farblk_close(two));
    ok(farblk_close(three));
    assert_int_equal(held_last_shuts, 1);
    farblk_queue_destroy(queue);
}

static void
device_may_lack_what_its_driver_has_of_fua(void **state)
{
    struct farblk_queue *queue;
    struct farblk *dev;

    (void)state;
    ok(farblk_queue_create(4, &queue));
    for (int lacks = 0; lacks < 2; lacks++) {
        held_lacks_fua = lacks ? UINT32_MAX : 0;
        dev = device_handle();
        device_submit(queue, dev, FARBLK_OP_WRITE, FARBLK_FUA);
        assert_int_equal(held_count, 1);
        assert_int_equal(held[0]->flags, lacks ? 0 : FARBLK_FUA);
        io_done(held_take(0), 0);
        /* A flush follows in its place. */
        assert_int_equal(held_count, lacks);
        if (lacks) {
            assert_int_equal(held[0]->op, FARBLK_OP_FLUSH);
            io_done(held_take(0), 0);
        }
        ok(farblk_close(dev));
    }
    held_lacks_fua = 0;
    farblk_queue_destroy(queue);
}

static void
uri_may_name_a_user_where_the_driver_has_users(void **state)
{
    static const struct uri_param none[] = {{.name = NULL}};
    struct farblk *dev = NULL;
    struct error error;
    struct uri uri;

    (void)state;
    error_clear(&error);
    assert_int_equal(uri_parse("x://a%40b%3A@host:7/p@q", none, &uri, &error),
                     0);
    assert_string_equal(uri.user, "a@b:");
    assert_string_equal(uri.host, "host");
    assert_int_equal(uri.port, 7);
    assert_string_equal(uri.path, "p@q");
    uri_free(&uri);
    assert_int_equal(uri_parse("x://@[::1]/", none, &uri, &error), 0);
    assert_string_equal(uri.user, "");
    assert_string_equal(uri.host, "::1");
    uri_free(&uri);
    assert_int_equal(uri_parse("x://host/", none, &uri, &error), 0);
    assert_null(uri.user);
    uri_free(&uri);
    assert_int_equal(uri_parse("x://a@b@host/", none, &uri, &error),
                     FARBLK_INVALID);
    assert_int_equal(uri_parse("x://%00@host/", none, &uri, &error),
                     FARBLK_INVALID);
    assert_int_equal(
        device_open(&held_driver, "fake://me@host/it", NULL, &dev, &error),
        FARBLK_INVALID);
    assert_non_null(strstr(error.text, "takes no user"));
    assert_null(dev);
}

static int
device_setup(void **state)
{
    (void)state;
    support_watch("device");
    return 0;
}

static int
device_teardown(void **state)
{
    (void)state;
    support_watch(NULL);
    return 0;
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, device_setup, device_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(last_handle_that_leaves_is_told_to_the_driver),
        TEST(device_may_lack_what_its_driver_has_of_fua),
        TEST(uri_may_name_a_user_where_the_driver_has_users),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
