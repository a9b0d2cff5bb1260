/* A VMDK image from anywhere, read, written, checked, mended and resized; and its descriptor, as
 * the parser and the editor of it see it. */
#include "disk/vmdk/vmdk.h"
#include "disk_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void edit(const char *text)
{
    char *more = vmdk_desc_set(text, "parentFileNameHint", "other", true);
    char *sized = more ? vmdk_desc_set_sectors(more, 12345) : NULL;
    char *less = sized ? vmdk_desc_set(sized, "parentCID", NULL, false) : NULL;
    size_t at = 0;
    size_t digits = 0;

    assert(less);
    if (vmdk_desc_find_cid(less, &at, &digits))
        assert(digits && digits <= 8 && at + digits <= strlen(less));
    free(more);
    free(sized);
    free(less);
}

static void parse(const char *text, size_t size)
{
    struct vmdk_desc d;

    if (vmdk_desc_parse(text, size, "x", &d, NULL))
        return;
    for (unsigned i = 0; i < d.count; i++)
        assert(d.lines[i].sectors <= DISK_MAX_BYTES / DISK_SECTOR && d.lines[i].kind[0]);
    edit(d.text);
    vmdk_desc_done(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_image(&vmdk_format, data, size);
    parse((const char *)data, size);
    return 0;
}
