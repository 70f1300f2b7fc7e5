/* SPDX-License-Identifier: ISC */
/*
 * Whether a certificate is believed.  mbed TLS decides on signatures, dates,
 * usage and host names; this says in words what it found, and checks what it
 * does not: 2.28 compares no IP addresses.  A host that is an address must
 * stand in the certificate as an address (subjectAltName IP), octet by octet;
 * a text that looks like it, in CN or a DNS name, does not count.
 */
#include "proto/link_tls_kind.h"

#include <mbedtls/error.h>
#include <mbedtls/oid.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

/* The kinds of names in a certificate (RFC 5280's GeneralName). */
#define SAN_DNS 2
#define SAN_IP 7

struct link_tls_date
link_tls_date(const mbedtls_x509_time *time)
{
    struct link_tls_date date;
    snprintf(date.text, sizeof date.text, "%04d-%02d-%02d %02d:%02d:%02d UTC",
             time->year, time->mon, time->day, time->hour, time->min,
             time->sec);
    return date;
}

void
link_tls_reason(int result, char *to, size_t size)
{
    mbedtls_strerror(result, to, size);
    size_t length = strlen(to);
    while (length > 0 && to[length - 1] == ' ')
        to[--length] = '\0';
}

static unsigned
san_kind(const mbedtls_x509_sequence *name)
{
    return (unsigned)name->buf.tag & MBEDTLS_ASN1_TAG_VALUE_MASK;
}

static bool
has_names(const mbedtls_x509_crt *cert)
{
    return (cert->ext_types & MBEDTLS_X509_EXT_SUBJECT_ALT_NAME) != 0;
}

/* Whether it is for the address that the client connects to. */
static bool
is_for_address(const mbedtls_x509_crt *cert, const struct link_tls *tls)
{
    if (!has_names(cert))
        return false;
    for (const mbedtls_x509_sequence *name = &cert->subject_alt_names;
         name != NULL; name = name->next)
        if (san_kind(name) == SAN_IP && name->buf.len == tls->address_length
            && memcmp(name->buf.p, tls->address, tls->address_length) == 0)
            return true;
    return false;
}

/* The names that it is for: "a.example, 10.0.0.1". */
static void
list_names(const mbedtls_x509_crt *cert, char *to, size_t size)
{
    size_t used = 0;
    snprintf(to, size, "no name at all");
    if (!has_names(cert)) {
        char subject[128];
        if (mbedtls_x509_dn_gets(subject, sizeof subject, &cert->subject) > 0)
            error_copy_text(to, size, subject, strlen(subject));
        return;
    }
    for (const mbedtls_x509_sequence *name = &cert->subject_alt_names;
         name != NULL && used + 4 < size; name = name->next) {
        char text[128] = "";
        const mbedtls_x509_buf *buf = &name->buf;
        if (san_kind(name) == SAN_DNS)
            error_copy_text(text, sizeof text, (const char *)buf->p, buf->len);
        else if (san_kind(name) == SAN_IP && (buf->len == 4 || buf->len == 16))
            inet_ntop(buf->len == 4 ? AF_INET : AF_INET6, buf->p, text,
                      sizeof text);
        if (text[0] == '\0')
            continue;
        int more = snprintf(to + used, size - used, "%s%s",
                            used > 0 ? ", " : "", text);
        used += more > 0 ? (size_t)more : 0;
    }
}

/* One reason that a person can act on, the first that applies. */
static void
tell(struct link_tls_verdict *verdict, const mbedtls_x509_crt *cert, int depth,
     uint32_t flags)
{
    const struct link_tls *tls = verdict->tls;
    char *to = verdict->text, names[160];
    size_t size = sizeof verdict->text;
    const char *whose = tls->server ? "the client's" : "the server's";
    const char *which =
        depth == 0 ? "certificate" : "chain has a CA certificate that";

    if ((flags & MBEDTLS_X509_BADCERT_EXPIRED) != 0) {
        snprintf(to, size, "%s %s has expired, on %s", whose, which,
                 link_tls_date(&cert->valid_to).text);
    } else if ((flags & MBEDTLS_X509_BADCERT_FUTURE) != 0) {
        snprintf(to, size, "%s %s is valid only from %s on", whose, which,
                 link_tls_date(&cert->valid_from).text);
    } else if ((flags & MBEDTLS_X509_BADCERT_NOT_TRUSTED) != 0) {
        snprintf(to, size, "%s certificate is not signed by a CA in %.160s",
                 whose, tls->ca_path);
    } else if ((flags & MBEDTLS_X509_BADCERT_CN_MISMATCH) != 0) {
        list_names(cert, names, sizeof names);
        snprintf(to, size, "%s certificate is for %s, not for %.100s", whose,
                 names, tls->host);
    } else {
        char more[160];
        mbedtls_x509_crt_verify_info(more, sizeof more, "", flags);
        more[strcspn(more, "\n")] = '\0';
        snprintf(to, size, "%s certificate is refused: %s", whose, more);
    }
}

int
link_tls_verify(void *arg, mbedtls_x509_crt *cert, int depth, uint32_t *flags)
{
    struct link_tls_verdict *verdict = arg;
    const struct link_tls *tls = verdict->tls;

    if (depth == 0) {
        char subject[256];
        if (mbedtls_x509_dn_gets(subject, sizeof subject, &cert->subject) > 0)
            error_copy_text(verdict->subject, sizeof verdict->subject, subject,
                            strlen(subject));
        if (!tls->server && tls->address_length > 0
            && !is_for_address(cert, tls))
            *flags |= MBEDTLS_X509_BADCERT_CN_MISMATCH;
    }
    if (*flags != 0 && verdict->text[0] == '\0')
        tell(verdict, cert, depth, *flags);
    return 0;
}
