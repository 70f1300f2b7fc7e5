/* SPDX-License-Identifier: ISC */
/*
 * Connections: which sessions each may speak for, and what becomes of those whose
 * session another one has taken over.
 */
#include "server/connection.h"

#include "server/session.h"

#include <stdlib.h>

struct session *
connection_session(struct connection *connection, uint64_t id, uint64_t *epoch)
{
    for (size_t i = 0; i < connection->bound_count; i++)
        if (connection->bound[i].session->id == id) {
            *epoch = connection->bound[i].epoch;
            return session_get(connection->bound[i].session);
        }
    return NULL;
}

bool
connection_binds(const struct binding *binding)
{
    return session_live(binding->session)
           && binding->epoch == session_epoch(binding->session);
}

size_t
connection_session_count(struct connection *connection)
{
    size_t count = 0;
    pthread_mutex_lock(&connection->mutex);
    for (size_t i = 0; i < connection->bound_count; i++)
        count += connection_binds(&connection->bound[i]);
    pthread_mutex_unlock(&connection->mutex);
    return count;
}

/* Let go of a session that has ended, or of any.  NULL: there is none. */
static struct session *
connection_unbind_one(struct connection *connection, bool any)
{
    struct session *session = NULL;
    pthread_mutex_lock(&connection->mutex);
    for (size_t i = 0; i < connection->bound_count; i++) {
        if (any || !session_live(connection->bound[i].session)) {
            session = connection->bound[i].session;
            connection->bound[i] = connection->bound[--connection->bound_count];
            break;
        }
    }
    pthread_mutex_unlock(&connection->mutex);
    return session;
}

void
connection_unbind(struct connection *connection, bool all)
{
    struct session *session;
    while ((session = connection_unbind_one(connection, all)) != NULL) {
        session_unbind(session);
        session_put(session);
    }
}

/* Room for one more, under the mutex. */
static bool
connection_grow(struct connection *connection)
{
    if (connection->bound_count < connection->bound_capacity)
        return true;
    size_t capacity =
        connection->bound_capacity == 0 ? 2 : 2 * connection->bound_capacity;
    struct binding *bound =
        realloc(connection->bound, capacity * sizeof *bound);
    if (bound == NULL)
        return false;
    connection->bound = bound;
    connection->bound_capacity = capacity;
    return true;
}

bool
connection_bind(struct connection *connection, struct session *session,
                uint64_t *epoch)
{
    struct session *same = connection_session(connection, session->id, epoch);
    if (same != NULL) {
        session_put(same);
        return true;
    }
    /* Only events of its link add to the list: nothing comes in between. */
    if (connection->bound_count == connection->bound_capacity)
        connection_unbind(connection, false);
    pthread_mutex_lock(&session->mutex);
    bool bound = session_live(session);
    if (bound) {
        pthread_mutex_lock(&connection->mutex);
        bound = connection_grow(connection);
        if (bound) {
            *epoch = session_epoch(session);
            connection->bound[connection->bound_count++] = (struct binding){
                .session = session_get(session), .epoch = *epoch};
            connection->alone_since_ms = 0;
            session->bindings++;
        }
        pthread_mutex_unlock(&connection->mutex);
    }
    pthread_mutex_unlock(&session->mutex);
    return bound;
}

void
connection_rebind(struct connection *connection, struct session *session,
                  uint64_t epoch)
{
    pthread_mutex_lock(&connection->mutex);
    for (size_t i = 0; i < connection->bound_count; i++)
        if (connection->bound[i].session == session)
            connection->bound[i].epoch = epoch;
    pthread_mutex_unlock(&connection->mutex);
}

/* Under both mutexes: whether it spoke for the session, and for nobody now. */
static bool
connection_is_void(const struct connection *connection,
                   const struct session *session)
{
    bool spoke = false, speaks = false;
    for (size_t i = 0; i < connection->bound_count; i++) {
        spoke |= connection->bound[i].session == session;
        speaks |= connection_binds(&connection->bound[i]);
    }
    return spoke && !speaks && !connection->closing;
}

void
connection_close_void(struct farblk_server *server,
                      const struct session *session)
{
    for (;;) {
        struct connection *found = NULL;
        pthread_mutex_lock(&server->mutex);
        for (struct connection *c = server->connections;
             c != NULL && found == NULL; c = c->next) {
            pthread_mutex_lock(&c->mutex);
            if (connection_is_void(c, session)) {
                c->closing = true;
                c->why = "another connection has taken its session over";
                found = connection_get(c);
            }
            pthread_mutex_unlock(&c->mutex);
        }
        pthread_mutex_unlock(&server->mutex);
        if (found == NULL)
            return;
        link_close(found->link, false);
        connection_put(found);
    }
}
