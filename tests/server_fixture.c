/* SPDX-License-Identifier: ISC */
/*
 * The fixture: the plug sits alone inside the device's gate, where a resize
 * would.
 */
#include "tests/server_fixture.h"

#include "core/block.h"

#include <stdio.h>
#include <time.h>

void
fixture_start(struct fixture *fixture,
              const struct farblk_server_options *options)
{
    memset(fixture, 0, sizeof *fixture);
    ok(farblk_ramdisk_create("server-disk", FIXTURE_SECTORS, 512));
    ok(farblk_open("ramdisk:server-disk", NULL, &fixture->disk));
    ok(farblk_server_create(options, &fixture->server));
    ok(farblk_server_export(fixture->server, "disk", "ramdisk:server-disk"));
    snprintf(fixture->url, sizeof fixture->url, "abstract://%s",
             support_name("farblk-server"));
    ok(farblk_server_listen(fixture->server, fixture->url));
    assert_string_equal(farblk_server_url(fixture->server, 0), fixture->url);
    assert_null(farblk_server_url(fixture->server, 1));
}

void
fixture_end(struct fixture *fixture)
{
    ok(farblk_server_stop(fixture->server, -1));
    farblk_server_destroy(fixture->server);
    ok(farblk_close(fixture->disk));
    ok(farblk_ramdisk_destroy("server-disk"));
}

static void
fixture_plugged(struct gate_waiter *waiter)
{
    (void)waiter;
}

void
fixture_plug(struct fixture *fixture)
{
    memset(&fixture->plug, 0, sizeof fixture->plug);
    fixture->plug.passed = fixture_plugged;
    assert_true(gate_enter(&fixture->disk->device->gate, &fixture->plug, true));
}

void
fixture_unplug(struct fixture *fixture)
{
    gate_leave(&fixture->disk->device->gate, true);
}

void
fixture_stats(struct fixture *fixture, struct farblk_server_stats *stats)
{
    const struct timespec moment = {.tv_nsec = 1000000};
    nanosleep(&moment, NULL);
    ok(farblk_server_stats(fixture->server, stats, sizeof *stats));
}

int
fixture_watch(void **state)
{
    (void)state;
    support_watch("a server test");
    return 0;
}

int
fixture_clean(void **state)
{
    (void)state;
    support_watch(NULL);
    block_set_limit(UINT64_MAX);
    return 0;
}
