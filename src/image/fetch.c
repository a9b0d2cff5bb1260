/* Downloads through libcurl's multi interface.
 *
 * Invariants:
 *  1. A file under its final name was complete and matched its digest when it was renamed.
 *  2. A transfer never writes more than its expected size.
 *  3. Temporary files (PATH.PID.part) of a failed or cancelled run are deleted; those of a killed
 *     process are swept by image_build().
 * Runs on the caller's thread. */
#include "image/fetch.h"

#include "base/fd.h"
#include "base/paths.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define FETCH_PARALLEL 8
#define FETCH_TRIES    3

/** One slot: a transfer in flight. */
struct transfer {
    CURL *curl; /* NULL = slot is free */
    const struct fetch *file;
    char *temp;
    int fd;
    struct digest *digest;
    uint64_t received;
    int write_error; /* errno of a failed local write */
    unsigned tries;
};

struct fetcher {
    CURLM *multi;
    struct transfer slots[FETCH_PARALLEL];
    uint64_t done, total; /* bytes of finished files, of all */
};

static void set_common(CURL *curl, const char *url)
{
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(curl, CURLOPT_MAXREDIRS, 8L);
    curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, 20L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 64L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, 60L);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "posada");
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https,file");
    curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
#else
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS, CURLPROTO_HTTP | CURLPROTO_HTTPS | CURLPROTO_FILE);
    curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS, CURLPROTO_HTTP | CURLPROTO_HTTPS);
#endif
}

static int global_init(struct error *err)
{
    static bool done;

    if (!done && curl_global_init(CURL_GLOBAL_DEFAULT))
        return error_set(err, EIO, "cannot initialise libcurl");
    done = true;
    return 0;
}

static size_t write_file(char *data, size_t one, size_t size, void *arg)
{
    struct transfer *t = arg;

    if (size > t->file->size_bytes - t->received)
        return 0;
    int r = fd_write_all(t->fd, data, size);
    if (r) {
        t->write_error = -r;
        return 0;
    }
    digest_add(t->digest, data, size);
    t->received += size;
    return size;
}

/** End a transfer without success, or after its file was renamed. */
static void transfer_done(struct fetcher *f, struct transfer *t)
{
    if (t->curl) {
        (void)curl_multi_remove_handle(f->multi, t->curl); /* it was added */
        curl_easy_cleanup(t->curl);
    }
    fd_close(t->fd);
    digest_free(t->digest);
    if (t->temp)
        (void)unlink(t->temp); /* gone if it was renamed */
    free(t->temp);
    *t = (struct transfer){.fd = -1};
}

static int transfer_start(struct fetcher *f, struct transfer *t, const struct fetch *file,
                          unsigned tries, struct error *err)
{
    *t = (struct transfer){.fd = -1, .file = file, .tries = tries};
    t->temp = paths_format(err, "%s.%d.part", file->path, (int)getpid());
    if (!t->temp)
        return -ENOMEM;
    t->fd = open(t->temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (t->fd < 0)
        return error_set(err, errno, "cannot create '%s': %s", t->temp, strerror(errno));
    t->digest = digest_new(DIGEST_SHA256);
    t->curl = curl_easy_init();
    if (!t->digest || !t->curl)
        return error_set(err, ENOMEM, "out of memory");
    set_common(t->curl, file->url);
    curl_easy_setopt(t->curl, CURLOPT_WRITEFUNCTION, write_file);
    curl_easy_setopt(t->curl, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(t->curl, CURLOPT_PRIVATE, t);
    if (curl_multi_add_handle(f->multi, t->curl))
        return error_set(err, ENOMEM, "out of memory");
    return 0;
}

/** libcurl has ended @t with @code: check and rename the file, or try again, or fail. */
static int transfer_finish(struct fetcher *f, struct transfer *t, CURLcode code, struct error *err)
{
    const struct fetch *file = t->file;
    char sum[DIGEST_HEX_MAX];

    if (t->write_error)
        return error_set(err, t->write_error, "cannot write '%s': %s", t->temp,
                         strerror(t->write_error));
    if (!code && t->received == file->size_bytes) {
        if (!digest_end(ptr_take(&t->digest), sum))
            return error_set(err, EIO, "cannot compute a SHA-256 digest");
        if (!strcmp(sum, file->sha256)) {
            if (rename(t->temp, file->path))
                return error_set(err, errno, "cannot rename '%s': %s", t->temp, strerror(errno));
            f->done += file->size_bytes;
            transfer_done(f, t);
            return 0;
        }
    }
    unsigned tries = t->tries;
    transfer_done(f, t);
    if (tries + 1 < FETCH_TRIES)
        return transfer_start(f, t, file, tries + 1, err);
    if (code && code != CURLE_WRITE_ERROR)
        return error_set(err, EIO, "cannot download '%s': %s", file->url, curl_easy_strerror(code));
    return error_set(err, EBADMSG,
                     "'%s' is not what the mirror's index promises; the mirror may be in the midst "
                     "of an update: try again later, or another one with --mirror",
                     file->url);
}

static int report(struct fetcher *f, fetch_progress_fn *progress, void *arg, struct error *err)
{
    uint64_t done = f->done;

    for (size_t i = 0; i < FETCH_PARALLEL; i++)
        done += f->slots[i].curl ? f->slots[i].received : 0;
    if (progress && progress(done, f->total, arg))
        return error_set(err, ECANCELED, "cancelled");
    return 0;
}

static bool is_cached(const struct fetch *file)
{
    char sum[DIGEST_HEX_MAX];
    struct stat st;

    return !stat(file->path, &st) && (uint64_t)st.st_size == file->size_bytes &&
           !digest_file(file->path, sum) && !strcmp(sum, file->sha256);
}

/** Start the next files that are not cached, until all slots are busy. */
static int fill_slots(struct fetcher *f, const struct fetch *list, size_t n, size_t *next,
                      struct error *err)
{
    for (size_t i = 0; i < FETCH_PARALLEL; i++) {
        while (!f->slots[i].curl && *next < n) {
            const struct fetch *file = &list[(*next)++];

            if (is_cached(file)) {
                f->done += file->size_bytes;
                continue;
            }
            int r = transfer_start(f, &f->slots[i], file, 0, err);
            if (r)
                return r;
        }
    }
    return 0;
}

static int run(struct fetcher *f, const struct fetch *list, size_t n, fetch_progress_fn *progress,
               void *arg, struct error *err)
{
    size_t next = 0;
    int running = 1, left = 0, r = 0;

    while (!r && (running || next < n)) {
        r = fill_slots(f, list, n, &next, err);
        if (!r && curl_multi_perform(f->multi, &running))
            r = error_set(err, EIO, "libcurl failed");
        for (CURLMsg *m; !r && (m = curl_multi_info_read(f->multi, &left));) {
            struct transfer *t = NULL;

            if (m->msg != CURLMSG_DONE)
                continue;
            CURLcode code = m->data.result;
            curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&t);
            r = transfer_finish(f, t, code, err);
            running = 1;
        }
        if (!r)
            r = report(f, progress, arg, err);
        if (!r && running && curl_multi_poll(f->multi, NULL, 0, 100, NULL))
            r = error_set(err, EIO, "libcurl failed");
    }
    return r;
}

int fetch_all(const struct fetch *list, size_t n, fetch_progress_fn *progress, void *arg,
              struct error *err)
{
    struct fetcher f = {0};
    int r = global_init(err);

    if (r)
        return r;
    for (size_t i = 0; i < n; i++)
        if (!checked_add(f.total, list[i].size_bytes, &f.total))
            return error_set(err, EINVAL, "the index claims impossible sizes");
    for (size_t i = 0; i < FETCH_PARALLEL; i++)
        f.slots[i].fd = -1;
    f.multi = curl_multi_init();
    if (!f.multi)
        return error_set(err, ENOMEM, "out of memory");
    r = run(&f, list, n, progress, arg, err);
    for (size_t i = 0; i < FETCH_PARALLEL; i++)
        transfer_done(&f, &f.slots[i]);
    (void)curl_multi_cleanup(f.multi); /* all handles were removed */
    return r;
}

struct memory {
    char *data;
    size_t size, max;
};

static size_t write_memory(char *data, size_t one, size_t size, void *arg)
{
    struct memory *m = arg;

    if (size > m->max - m->size)
        return 0;
    char *grown = realloc(m->data, m->size + size + 1);
    if (!grown)
        return 0;
    m->data = grown;
    memcpy(m->data + m->size, data, size);
    m->size += size;
    m->data[m->size] = 0;
    return size;
}

int fetch_memory(const char *url, size_t max, char **ret, size_t *ret_size, struct error *err)
{
    struct memory m = {.data = calloc(1, 1), .max = max};
    long status = 0;
    int r = global_init(err);

    CURL *curl = r ? NULL : curl_easy_init();
    if (!curl || !m.data) {
        curl_easy_cleanup(curl);
        free(m.data);
        return error_set(err, ENOMEM, "out of memory");
    }
    set_common(curl, url);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, write_memory);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &m);
    CURLcode code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_cleanup(curl);
    if (code) {
        bool absent = status == 404 || code == CURLE_FILE_COULDNT_READ_FILE;

        free(m.data);
        return error_set(err, absent ? ENOENT : EIO, "cannot download '%s': %s", url,
                         curl_easy_strerror(code));
    }
    *ret = m.data;
    *ret_size = m.size;
    return 0;
}
