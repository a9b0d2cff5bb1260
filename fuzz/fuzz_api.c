/* A line of the API, from either end. */
#include "api/api.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct api_message m;
    struct error err = {0};

    if (api_parse((const char *)data, size, &m, &err)) {
        assert(err.code && *err.text);
        return 0;
    }
    assert(m.root && (m.kind != API_CALL || *m.name));
    if (m.kind == API_ERROR) {
        assert(api_error_of(&m, &err) < 0);
        json_decref(api_error_json(&err));
    }
    api_message_done(&m);
    return 0;
}
