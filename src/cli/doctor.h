/* What `posada doctor` looks at. */
#ifndef CLI_DOCTOR_H
#define CLI_DOCTOR_H

#include "base/macros.h"

enum doctor_status { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL };

/** What one check found. Texts are phrases without a final full stop. */
struct doctor_result {
    enum doctor_status status;
    char text[256];
    char remedy[256]; /* what to do; empty when all is well */
};

struct doctor_check {
    const char *name;
    void (*fn)(struct doctor_result *r);
};

/** All checks in order; ends with a NULL name. */
extern const struct doctor_check doctor_checks[];

/** Set @r whole: @fmt is the finding. @remedy may be NULL. */
void doctor_set(struct doctor_result *r, enum doctor_status status, const char *remedy,
                const char *fmt, ...) printf_like(4, 5);

/* The host: CPU, kernel, memory. */
void doctor_cpu(struct doctor_result *r);
void doctor_kvm(struct doctor_result *r);
void doctor_memory(struct doctor_result *r);
void doctor_code_memory(struct doctor_result *r);
void doctor_descriptors(struct doctor_result *r);
void doctor_user_namespaces(struct doctor_result *r);
void doctor_io_uring(struct doctor_result *r);

/* What Posada keeps and fetches. */
void doctor_cache(struct doctor_result *r);
void doctor_firmware(struct doctor_result *r);
void doctor_data(struct doctor_result *r);
void doctor_mirror(struct doctor_result *r);
void doctor_tools(struct doctor_result *r);

#endif
