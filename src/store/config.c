/* The schema of instance.yaml, and what is done to values by its rows. Any thread; the caller owns
 * the struct. */
#include "store/config.h"

#include "base/fd.h"
#include "base/opt.h"
#include "base/paths.h"
#include "vm/firmware.h"
#include "vm/words.h"

#include <errno.h>
#include <string.h>

#define MIB         (1LL << 20)
#define AT(field)   .offset = offsetof(struct instance_config, field)
#define RESTART_MAX 1000000

bool config_restart(const char *text, enum restart_policy *ret, unsigned *ret_max)
{
    static const char *const names[] = {[RESTART_NO] = "no",
                                        [RESTART_ON_FAILURE] = "on-failure",
                                        [RESTART_ALWAYS] = "always",
                                        [RESTART_UNLESS_STOPPED] = "unless-stopped"};
    int64_t max = 0;

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        size_t n = strlen(names[i]);
        if (strncmp(text, names[i], n) != 0)
            continue;
        if (text[n] && (i != RESTART_ON_FAILURE || text[n] != ':' ||
                        opt_parse_int(text + n + 1, &max) || max < 1 || max > RESTART_MAX))
            continue;
        *ret = (enum restart_policy)i;
        *ret_max = (unsigned)max;
        return true;
    }
    return false;
}

static int check_restart(const char *value, struct error *err)
{
    enum restart_policy policy;
    unsigned max;

    if (config_restart(value, &policy, &max))
        return 0;
    return error_set(err, EINVAL,
                     "expected no, on-failure, on-failure:N, always or unless-stopped, not '%s'",
                     value);
}

static int check_mac(const char *value, struct error *err)
{
    uint8_t mac[6];

    return *value ? vm_parse_mac(value, mac, err) : 0;
}

static int check_publish(const char *value, struct error *err)
{
    struct net_forward f;

    return vm_parse_forward(value, &f, err);
}

static int check_volume(const char *value, struct error *err)
{
    cleanup(freep) char *copy = strdup(value);
    struct vm_share_config s;

    return copy ? vm_parse_share(copy, &s, err) : error_set(err, ENOMEM, "out of memory");
}

static int check_disk(const char *value, struct error *err)
{
    cleanup(freep) char *copy = strdup(value);
    struct vm_disk_config d;

    return copy ? vm_parse_disk(copy, &d, err) : error_set(err, ENOMEM, "out of memory");
}

static int check_uuid(const char *value, struct error *err)
{
    static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    bool good = strlen(value) == strlen(form);

    for (size_t i = 0; good && form[i]; i++)
        good = form[i] == '-' ? value[i] == '-' : strchr("0123456789abcdef", value[i]) != NULL;
    return good || !*value ? 0 : error_set(err, EINVAL, "expected a UUID, not '%s'", value);
}

const struct config_key config_keys[] = {
    {"description",                    CONFIG_TEXT, AT(description), .live = true, .help = "A line about it"},
    {"uuid",                 CONFIG_TEXT, AT(uuid), .check = check_uuid, .always = true, .fixed = true,
     .help = "The machine's identity"},
    {"image",       CONFIG_TEXT, AT(image), .always = true, .fixed = true,
     .help = "The image it was made from"},
    {"arch",                           CONFIG_TEXT, AT(arch), .def = "riscv64", .always = true, .fixed = true,
     .help = "Architecture of the machine"},
    {"cpus",                        CONFIG_INT, AT(cpus), .def = "1", .min = 1, .max = VM_MAX_CPUS, .always = true,
     .help = "Processors"},
    {"memory",                  CONFIG_SIZE, AT(memory), .def = "1G", .min = 16 * MIB, .max = 1LL << 40,
     .always = true, .help = "Memory, whole mebibytes"},
    {"engine", CONFIG_CHOICE, AT(engine), .def = "jit", .choices = "jit interp check kvm",
     .always = true, .help = "What executes guest instructions"},
    {"engine-reason",                          CONFIG_TEXT, AT(engine_reason), .fixed = true,
     .help = "Why it was made for this engine, if nobody chose"},
    {"cpu",                       CONFIG_CHOICE, AT(cpu), .def = "max",
     .choices = "max rva23 rva22 x86-64-v2 x86-64-v3 x86-64-v4",
     .help = "Instruction set extensions"},
    {"vlen",                   CONFIG_CHOICE, AT(vlen), .def = "256", .choices = "128 256 512",
     .help = "Bits of a vector register"},
    {"kernel",                                CONFIG_TEXT, AT(kernel), .help = "Kernel's file; a relative one lies in the folder"},
    {"initrd",CONFIG_TEXT, AT(initrd), .help = "Initial RAM disk's file"},
    {"append",                CONFIG_TEXT, AT(append), .help = "Kernel arguments"},
    {"firmware",                   CONFIG_TEXT, AT(firmware),
     .help = "Firmware's file, in place of the built-in SBI; amd64 also: seabios, ovmf"},
    {"payload",                                CONFIG_TEXT, AT(payload), .help = "What the firmware starts"},
    {"flash",CONFIG_TEXT, AT(flash),
     .help = "Contents of the second flash bank; amd64: ovmf's variables, made as vars.fd"},
    {"console",                      CONFIG_CHOICE, AT(console), .def = "auto", .choices = "auto virtio uart",
     .help = "The guest's device for the console; auto: uart with firmware, else virtio"},
    {"cloud-init",              CONFIG_TEXT, AT(cloud_init), .help = "NoCloud seed disk's file"},
    {"disks",             CONFIG_LIST, AT(disks), .check = check_disk,
     .help = "More disks, FILE[,WORD...], as 'posada run --disk' has them"},
    {"disk-bus",                         CONFIG_CHOICE, AT(disk_bus), .def = "virtio", .choices = "virtio ahci",
     .help = "How the guest sees the instance's own disks"},
    {"boot",                      CONFIG_CHOICE, AT(boot), .def = "disk", .choices = "disk cdrom",
     .help = "What amd64 firmware looks at first"},
    {"volumes",                 CONFIG_LIST, AT(volumes), .check = check_volume,
     .help = "Shared folders, DIR:/PATH[:ro]"},
    {"net",                   CONFIG_CHOICE, AT(net), .def = "user", .choices = "user none", .always = true,
     .help = "Network"},
    {"mac",                                CONFIG_TEXT, AT(mac), .check = check_mac, .always = true,
     .help = "Address of the network card"},
    {"publish",                   CONFIG_LIST, AT(publish), .check = check_publish,
     .help = "Forwarded ports, [ADDR:]PORT:PORT[/udp]"},
    {"oem-strings",                    CONFIG_LIST, AT(oem_strings),
     .help = "Texts for the guest to find in SMBIOS (amd64)"},
    {"rng",                   CONFIG_FLAG, AT(rng), .def = "yes", .help = "Random number device"},
    {"balloon",                                CONFIG_FLAG, AT(balloon), .def = "yes", .help = "Balloon device"},
    {"restart",CONFIG_TEXT, AT(restart), .def = "no", .check = check_restart, .always = true,
     .live = true, .help = "When the guest ends: no, on-failure[:N], always, unless-stopped"},
    {"autostart",                   CONFIG_FLAG, AT(autostart), .def = "no", .live = true,
     .help = "'posada autostart' starts it"},
    {0                               },
};

static const char *next_name(void *arg)
{
    const struct config_key **k = arg;

    return (*k)->name ? (*k)++->name : NULL;
}

const struct config_key *config_find(const char *name, struct error *err)
{
    for (const struct config_key *k = config_keys; k->name; k++) {
        if (!strcmp(k->name, name))
            return k;
    }
    const struct config_key *first = config_keys;
    const char *near = opt_nearest(name, next_name, &first);
    (void)error_set(err, EINVAL, "unknown key '%s'%s%s%s", name, near ? "; did you mean '" : "",
                    near ? near : "", near ? "'?" : "");
    return NULL;
}

static void *field(const struct instance_config *c, const struct config_key *k)
{
    return (char *)c + k->offset; /* as memchr() does: const or not is the caller's */
}

static bool is_text(const struct config_key *k)
{
    return k->kind == CONFIG_TEXT || k->kind == CONFIG_CHOICE;
}

static void list_done(struct config_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->v[i]);
    free(l->v);
    *l = (struct config_list){0};
}

void config_done(struct instance_config *c)
{
    for (const struct config_key *k = config_keys; k->name; k++) {
        if (k->kind == CONFIG_LIST)
            list_done(field(c, k));
        else if (is_text(k))
            free(*(char **)field(c, k));
    }
    *c = (struct instance_config){0};
}

const char *const config_files[] = {"kernel", "initrd",     "firmware", "payload",
                                    "flash",  "cloud-init", NULL};

static const char *file_of(const struct instance_config *c, const char *key)
{
    const struct config_key *k = config_find(key, NULL);
    const char *value = k ? *(char *const *)(const void *)((const char *)c + k->offset) : "";
    bool is_name = !strcmp(key, "firmware") && vm_firmware_is_name(value);

    return *value && !is_name ? value : NULL;
}

const char *config_own_file(const struct instance_config *c, const char *key)
{
    const char *value = file_of(c, key);

    return value && !strchr(value, '/') ? value : NULL;
}

bool config_names_host_file(const struct instance_config *c, const char *key)
{
    return file_of(c, key) && !config_own_file(c, key);
}

int config_init(struct instance_config *ret, struct error *err)
{
    *ret = (struct instance_config){0};
    for (const struct config_key *k = config_keys; k->name; k++) {
        if (k->kind == CONFIG_LIST)
            continue;
        int r = config_set(ret, k, k->def ? k->def : "", err);
        if (r) {
            config_done(ret);
            return r;
        }
    }
    return 0;
}

int config_copy(const struct instance_config *from, struct instance_config *ret, struct error *err)
{
    int r = config_init(ret, err);

    for (const struct config_key *k = config_keys; !r && k->name; k++) {
        const struct config_list *l = field(from, k);
        if (k->kind == CONFIG_LIST) {
            for (size_t i = 0; !r && i < l->n; i++)
                r = config_add(ret, k, l->v[i], err);
        } else if (is_text(k)) {
            r = config_set(ret, k, *(char *const *)field(from, k), err);
        } else if (k->kind == CONFIG_FLAG) {
            *(bool *)field(ret, k) = *(const bool *)field(from, k);
        } else {
            memcpy(field(ret, k), field(from, k), sizeof(uint64_t));
        }
    }
    if (r)
        config_done(ret);
    return r;
}

static int set_flag(bool *ret, const char *value, struct error *err)
{
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on"};

    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (!strcmp(value, words[i])) {
            *ret = i & 1;
            return 0;
        }
    }
    return error_set(err, EINVAL, "expected yes or no, not '%s'", value);
}

static bool has_word(const char *words, const char *word)
{
    size_t n = strlen(word);

    for (const char *p = words; n && p && (p = strstr(p, word)); p++) {
        if ((p == words || p[-1] == ' ') && (!p[n] || p[n] == ' '))
            return true;
    }
    return false;
}

/** The code point at *@p, which moves behind it; -1: it is no UTF-8 (RFC 3629). */
static int32_t next_code(const char **p)
{
    static const int32_t least[] = {0, 0x80, 0x800, 0x10000};
    const uint8_t *b = (const uint8_t *)*p;
    unsigned more = b[0] < 0x80   ? 0
                    : b[0] < 0xc0 ? 4
                    : b[0] < 0xe0 ? 1
                    : b[0] < 0xf0 ? 2
                    : b[0] < 0xf8 ? 3
                                  : 4;
    int32_t code = more ? b[0] & (0x3f >> more) : b[0];

    if (more == 4)
        return -1;
    for (unsigned i = 1; i <= more; i++) {
        if ((b[i] & 0xc0) != 0x80) /* the final NUL, too */
            return -1;
        code = code << 6 | (b[i] & 0x3f);
    }
    *p += more + 1;
    return code < least[more] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? -1 : code;
}

/** May @code stand in a value? Nothing that ends a line or that YAML 1.1 does not call printable,
 * for a value is written as it is. */
static bool is_printable(int32_t code)
{
    return code >= ' ' && (code < 0x7f || code >= 0xa0) && code != 0x2028 && code != 0x2029 &&
           code != 0xfeff && code != 0xfffe && code != 0xffff;
}

/** Length, characters, and the key's own check. */
static int check_text(const struct config_key *k, const char *value, struct error *err)
{
    if (strlen(value) > CONFIG_TEXT_MAX)
        return error_set(err, EINVAL, "longer than %d bytes", CONFIG_TEXT_MAX);
    for (const char *p = value; *p;) {
        int32_t code = next_code(&p);
        if (code < 0)
            return error_set(err, EINVAL, "the text is not UTF-8");
        if (!is_printable(code))
            return error_set(err, EINVAL, "control characters are not allowed");
    }
    if (k->kind == CONFIG_CHOICE && !has_word(k->choices, value))
        return error_set(err, EINVAL, "expected one of: %s; not '%s'", k->choices, value);
    return k->check ? k->check(value, err) : 0;
}

static int set_scalar(struct instance_config *c, const struct config_key *k, const char *value,
                      struct error *err)
{
    char low[32], high[32];
    uint64_t bytes;
    int64_t number;

    switch (k->kind) {
    case CONFIG_FLAG:
        return set_flag(field(c, k), value, err);
    case CONFIG_INT:
        if (opt_parse_int(value, &number) || number < k->min || number > k->max)
            return error_set(err, EINVAL, "expected a number from %lld to %lld, not '%s'",
                             (long long)k->min, (long long)k->max, value);
        *(int64_t *)field(c, k) = number;
        return 0;
    case CONFIG_SIZE:
        if (opt_parse_size(value, &bytes) || bytes < (uint64_t)k->min || bytes > (uint64_t)k->max ||
            bytes % MIB)
            return error_set(err, EINVAL, "expected whole mebibytes from %s to %s, not '%s'",
                             opt_format_size((uint64_t)k->min, low, sizeof(low)),
                             opt_format_size((uint64_t)k->max, high, sizeof(high)), value);
        *(uint64_t *)field(c, k) = bytes;
        return 0;
    case CONFIG_TEXT:
    case CONFIG_CHOICE:
    case CONFIG_LIST:
        break;
    }
    int r = check_text(k, value, err);
    char *copy = r ? NULL : strdup(value);
    if (!copy)
        return r ? r : error_set(err, ENOMEM, "out of memory");
    char **text = field(c, k);
    free(*text);
    *text = copy;
    return 0;
}

static int list_add(struct config_list *l, const struct config_key *k, const char *value,
                    struct error *err)
{
    int r = check_text(k, value, err);

    if (r)
        return r;
    if (l->n == CONFIG_LIST_MAX)
        return error_set(err, E2BIG, "at most %d are possible", CONFIG_LIST_MAX);
    char **grown = reallocarray(l->v, l->n + 1, sizeof(*l->v));
    if (grown)
        l->v = grown;
    char *copy = grown ? strdup(value) : NULL;
    if (!copy)
        return error_set(err, ENOMEM, "out of memory");
    l->v[l->n++] = copy;
    return 0;
}

int config_add(struct instance_config *c, const struct config_key *k, const char *value,
               struct error *err)
{
    if (k->kind != CONFIG_LIST)
        return error_set(err, EINVAL, "%s is not a list: use %s=VALUE", k->name, k->name);
    int r = list_add(field(c, k), k, value, err);
    if (r)
        error_prefix(err, "%s", k->name);
    return r;
}

int config_drop(struct instance_config *c, const struct config_key *k, const char *value,
                struct error *err)
{
    struct config_list *l = field(c, k);

    if (k->kind != CONFIG_LIST)
        return error_set(err, EINVAL, "%s is not a list: use %s=VALUE", k->name, k->name);
    for (size_t i = 0; i < l->n; i++) {
        if (strcmp(l->v[i], value) != 0)
            continue;
        free(l->v[i]);
        memmove(l->v + i, l->v + i + 1, (--l->n - i) * sizeof(*l->v));
        return 0;
    }
    return error_set(err, ENOENT, "%s: '%s' is not in it", k->name, value);
}

int config_set(struct instance_config *c, const struct config_key *k, const char *value,
               struct error *err)
{
    int r;

    if (k->kind != CONFIG_LIST) {
        r = set_scalar(c, k, value, err);
    } else {
        struct config_list fresh = {0};
        r = *value ? list_add(&fresh, k, value, err) : 0;
        if (r) {
            list_done(&fresh);
        } else {
            list_done(field(c, k));
            *(struct config_list *)field(c, k) = fresh;
        }
    }
    if (r)
        error_prefix(err, "%s", k->name);
    return r;
}

int config_assign(struct instance_config *c, const char *text, const struct config_key **ret_key,
                  struct error *err)
{
    const char *equals = strchr(text, '=');

    if (!equals || equals == text)
        return error_set(err, EINVAL, "expected KEY=VALUE, not '%s'", text);
    bool adds = equals[-1] == '+';
    bool drops = equals[-1] == '-';
    cleanup(freep) char *name = strndup(text, (size_t)(equals - text) - (adds || drops));
    if (!name)
        return error_set(err, ENOMEM, "out of memory");
    const struct config_key *k = config_find(name, err);
    if (!k)
        return -EINVAL;
    if (k->fixed)
        return error_set(err, EPERM, "%s: what an instance was made as cannot be changed", k->name);
    if (ret_key)
        *ret_key = k;
    if (adds)
        return config_add(c, k, equals + 1, err);
    return drops ? config_drop(c, k, equals + 1, err) : config_set(c, k, equals + 1, err);
}

int config_check(const struct instance_config *c, struct error *err)
{
    bool kvm = !strcmp(c->engine, "kvm");
    bool amd64 = !strcmp(c->arch, "amd64");

    if (kvm != amd64)
        return error_set(err, EINVAL, "a machine of arch %s cannot have engine %s", c->arch,
                         c->engine);
    if (c->publish.n && !strcmp(c->net, "none"))
        return error_set(err, EINVAL, "publish needs a network: it excludes net none");
    if (*c->initrd && !*c->kernel)
        return error_set(err, EINVAL, "initrd needs kernel");
    if (*c->payload && !*c->firmware)
        return error_set(err, EINVAL, "payload needs firmware");
    if (c->disks.n > VM_MAX_DISKS - 2)
        return error_set(err, EINVAL, "at most %d disks may be added", VM_MAX_DISKS - 2);
    if (vm_firmware_is_name(c->firmware) && !amd64)
        return error_set(err, EINVAL, "firmware %s is for amd64 machines", c->firmware);
    if (c->oem_strings.n && !amd64)
        return error_set(err, EINVAL, "oem-strings are for amd64 machines");
    if (c->volumes.n > VM_MAX_SHARES)
        return error_set(err, EINVAL, "at most %d volumes are possible", VM_MAX_SHARES);
    return 0;
}

json_t *config_get_json(const struct instance_config *c, const struct config_key *k)
{
    const struct config_list *l = field(c, k);
    json_t *list;

    switch (k->kind) {
    case CONFIG_INT:
    case CONFIG_SIZE:
        return json_integer(*(const json_int_t *)field(c, k));
    case CONFIG_FLAG:
        return json_boolean(*(const bool *)field(c, k));
    case CONFIG_TEXT:
    case CONFIG_CHOICE:
        return json_string(*(char *const *)field(c, k));
    case CONFIG_LIST:
        break;
    }
    list = json_array();
    for (size_t i = 0; i < l->n; i++)
        (void)json_array_append_new(list, json_string(l->v[i])); /* fails on NULL: out of memory */
    return list;
}

json_t *config_json(const struct instance_config *c)
{
    json_t *all = json_object();

    for (const struct config_key *k = config_keys; all && k->name; k++)
        (void)json_object_set_new(all, k->name, config_get_json(c, k));
    return all;
}

static char *join(const struct config_list *l)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    for (size_t i = 0; f && i < l->n; i++)
        (void)fprintf(f, "%s%s", i ? "\n" : "", l->v[i]);
    if (!f || fclose(f)) {
        free(text);
        return NULL;
    }
    return text;
}

char *config_get(const struct instance_config *c, const struct config_key *k)
{
    char size[32];

    switch (k->kind) {
    case CONFIG_INT:
        return paths_format(NULL, "%lld", (long long)*(const int64_t *)field(c, k));
    case CONFIG_SIZE:
        return strdup(opt_format_size(*(const uint64_t *)field(c, k), size, sizeof(size)));
    case CONFIG_FLAG:
        return strdup(*(const bool *)field(c, k) ? "yes" : "no");
    case CONFIG_TEXT:
    case CONFIG_CHOICE:
        return strdup(*(char *const *)field(c, k));
    case CONFIG_LIST:
        break;
    }
    return join(field(c, k));
}
