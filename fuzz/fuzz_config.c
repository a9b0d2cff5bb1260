/* instance.yaml, which people and other programs edit: any text is read or refused; what is read
 * survives being written, and the change of a key. */
#include "base/fd.h"
#include "store/config.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/** The text of @c is read, and says the same. */
static void check_round_trip(const struct instance_config *c)
{
    struct instance_config back;
    cleanup(freep) char *text = config_format(c, NULL);

    if (!text || strlen(text) > CONFIG_FILE_MAX)
        return;
    assert(!config_parse("again", text, strlen(text), &back, NULL));
    json_t *a = config_json(c);
    json_t *b = config_json(&back);
    assert(json_equal(a, b));
    json_decref(a);
    json_decref(b);
    config_done(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct instance_config c;
    struct error err = {0};
    cleanup(freep) char *text = malloc(size + 1);

    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (config_parse("fuzz", text, size, &c, &err)) {
        assert(err.code && *err.text);
        return 0;
    }
    check_round_trip(&c);
    if (strlen(text) == size && !config_assign(&c, "cpus=7", NULL, &err)) {
        cleanup(freep) char *fresh = config_replace(text, &c, config_find("cpus", NULL), NULL);
        struct instance_config back;
        if (fresh && strlen(fresh) <= CONFIG_FILE_MAX) {
            assert(!config_parse("replaced", fresh, strlen(fresh), &back, NULL));
            assert(back.cpus == 7);
            config_done(&back);
        }
    }
    config_done(&c);
    return 0;
}
