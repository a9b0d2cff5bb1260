/* Built-in SBI: debug console. Spec: RISC-V SBI 3.0 §12. */
#include "boot/sbi_internal.h"

#define CHUNK 1024

/* §12.1: writes at most what is given; fewer bytes are allowed and the guest asks again. */
static struct sbi_return console_write(struct sbi *s, const struct sbi_args *args)
{
    const struct sbi_host *host = &s->config.host;
    char buf[CHUNK];
    size_t size = MIN(args->a[0], (uint64_t)CHUNK);

    if (!sbi_is_high_zero(args->a[2]) ||
        !mem_ptr(s->config.mem, GPA(args->a[1]), args->a[0], false) ||
        mem_copy_in(s->config.mem, GPA(args->a[1]), buf, size))
        return sbi_error(SBI_INVALID_PARAM);
    return sbi_value(host->console_write(host->arg, buf, size));
}

static struct sbi_return console_read(struct sbi *s, const struct sbi_args *args)
{
    const struct sbi_host *host = &s->config.host;
    char buf[CHUNK];
    size_t size = MIN(args->a[0], (uint64_t)CHUNK);

    if (!sbi_is_high_zero(args->a[2]) || !mem_ptr(s->config.mem, GPA(args->a[1]), args->a[0], true))
        return sbi_error(SBI_INVALID_PARAM);
    size = host->console_read(host->arg, buf, size);
    if (mem_copy_out(s->config.mem, GPA(args->a[1]), buf, size))
        return sbi_error(SBI_FAILED);
    return sbi_value(size);
}

/* §12.3: this one blocks; a console that is full for long loses the byte and says so. */
static struct sbi_return write_byte(struct sbi *s, const struct sbi_args *args)
{
    const struct sbi_host *host = &s->config.host;
    uint8_t byte = (uint8_t)args->a[0];

    return sbi_error(host->console_write(host->arg, &byte, 1) ? SBI_SUCCESS : SBI_FAILED);
}

struct sbi_return sbi_dbcn(struct sbi *s, const struct sbi_args *args, uint64_t fid)
{
    switch (fid) {
    case 0:
        return console_write(s, args);
    case 1:
        return console_read(s, args);
    case 2:
        return write_byte(s, args);
    default:
        return sbi_error(SBI_NOT_SUPPORTED);
    }
}
