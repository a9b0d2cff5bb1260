/* Lines to messages and back. See api/api.h. No state. */
#include "api/api.h"

#include <errno.h>
#include <string.h>

enum { ERRNO_MAX = 134, NAME_MAX_BYTES = 64 };

/** The errno value called @name, or @def. */
static int errno_of(const char *name, int def)
{
    for (int e = 1; name && e < ERRNO_MAX; e++) {
        const char *n = strerrorname_np(e);
        if (n && !strcmp(n, name))
            return e;
    }
    return def;
}

void api_message_done(struct api_message *m)
{
    json_decref(m->root);
    *m = (struct api_message){0};
}

static bool is_name(const json_t *j)
{
    return json_is_string(j) && json_string_length(j) <= NAME_MAX_BYTES && json_string_length(j);
}

/** Which message the object m->root is. */
static int classify(struct api_message *m, struct error *err)
{
    static const struct {
        const char *key;
        enum api_kind kind;
    } bodies[] = {
        {"progress", API_PROGRESS},
        {"result",   API_RESULT  },
        {"error",    API_ERROR   },
    };
    const json_t *id = json_object_get(m->root, "id");
    const json_t *call = json_object_get(m->root, "call");
    const json_t *event = json_object_get(m->root, "event");

    if (is_name(event)) {
        m->kind = API_EVENT;
        m->id = -1;
        m->name = json_string_value(event);
        m->body = m->root;
        return 0;
    }
    if (!json_is_integer(id) || json_integer_value(id) < 0)
        return error_set(err, EINVAL, "a message needs an \"id\", a number from 0 on");
    m->id = json_integer_value(id);
    if (is_name(call)) {
        m->kind = API_CALL;
        m->name = json_string_value(call);
        m->body = json_object_get(m->root, "args");
        if (m->body && !json_is_object(m->body))
            return error_set(err, EINVAL, "\"args\" must be an object");
        return 0;
    }
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        m->body = json_object_get(m->root, bodies[i].key);
        m->kind = bodies[i].kind;
        if (json_is_object(m->body))
            return 0;
    }
    return error_set(err, EINVAL,
                     "a message needs \"call\", \"progress\", \"result\", \"error\" or \"event\"");
}

int api_parse(const char *line, size_t size, struct api_message *ret, struct error *err)
{
    struct api_message m = {0};
    json_error_t why;

    if (size > API_LINE_MAX)
        return error_set(err, EINVAL, "a line is longer than %d bytes", API_LINE_MAX);
    m.root = json_loadb(line, size, JSON_REJECT_DUPLICATES, &why);
    if (!m.root)
        return error_set(err, EINVAL, "not JSON: %s", why.text);
    int r = json_is_object(m.root) ? classify(&m, err)
                                   : error_set(err, EINVAL, "a message must be an object");
    if (r)
        api_message_done(&m);
    else
        *ret = m;
    return r;
}

int api_error_of(const struct api_message *m, struct error *err)
{
    const char *text = json_string_value(json_object_get(m->body, "text"));
    const char *code = json_string_value(json_object_get(m->body, "code"));

    return error_set(err, errno_of(code, EPROTO), "%s", text ? text : "an error without a text");
}

json_t *api_error_json(const struct error *err)
{
    const char *name = strerrorname_np(err->code);

    return json_pack("{s:s, s:o}", "code", name ? name : "EIO", "text",
                     json_stringn_nocheck(error_text(err), strlen(error_text(err))));
}
