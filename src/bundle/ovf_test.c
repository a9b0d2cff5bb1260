/* Tests of OVF descriptors: ours come back, others' are understood, bad ones refused. */
#include "base/test.h"

#include "bundle/ovf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TEST(descriptors_come_back)
{
    struct ovf o = {
        .name = (char *)"web <1> & \"more\"",
        .cpus = 3,
        .memory_bytes = 768 << 20,
        .cards = 1,
        .disks = {{.file = {(char *)"web-disk1.vmdk", 12345},
                   .capacity_bytes = 10ULL << 30,
                   .populated_bytes = 1 << 20},
                  {.file = {(char *)"web-disk2.vmdk", 99}, .capacity_bytes = 512}},
        .disk_count = 2,
        .config = (char *)"image: debian\n# a comment & <tag>\ncpus: 3\n",
        .kernel = {(char *)"kernel",                               7              },
    };
    struct ovf back;
    struct error err = {0};
    char *text;
    size_t size;

    ASSERT_EQ(ovf_format(&o, &text, &size, &err), 0);
    ASSERT_EQ(ovf_parse(text, size, &back, &err), 0);
    EXPECT_STR(back.name, o.name);
    EXPECT_EQ(back.cpus, 3);
    EXPECT_EQ(back.memory_bytes, 768 << 20);
    EXPECT_EQ(back.cards, 1);
    ASSERT_EQ(back.disk_count, 2);
    EXPECT_STR(back.disks[0].file.name, "web-disk1.vmdk");
    EXPECT_EQ(back.disks[0].file.bytes, 12345);
    EXPECT_EQ(back.disks[0].capacity_bytes, 10ULL << 30);
    EXPECT_TRUE(back.disks[1].is_vmdk);
    EXPECT_STR(back.config, o.config);
    EXPECT_STR(back.kernel.name, "kernel");
    EXPECT_TRUE(!back.initrd.name);
    ovf_done(&back);
    free(text);
}

TEST(what_xml_cannot_hold_is_refused)
{
    struct ovf o = {.name = (char *)"a\x01z", .cpus = 1};
    char *text;
    size_t size;

    EXPECT_EQ(ovf_format(&o, &text, &size, NULL), -EINVAL);
    o.name = (char *)"a\xffz";
    EXPECT_EQ(ovf_format(&o, &text, &size, NULL), -EINVAL);
}

/* As VMware's and VirtualBox's tools write them: other namespace prefixes, units, item kinds. */
static const char foreign[] =
    "<?xml version='1.0'?>\n"
    "<ovf:Envelope xmlns:ovf='http://schemas.dmtf.org/ovf/envelope/1' "
    "xmlns:r='http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData' "
    "xmlns:vmw='http://www.vmware.com/schema/ovf'>"
    "<ovf:References><ovf:File ovf:id='f1' ovf:href='box-disk1.vmdk' ovf:size='77'/></ovf:References>"
    "<ovf:DiskSection><ovf:Info/><ovf:Disk ovf:capacity='20' "
    "ovf:capacityAllocationUnits='byte * 2^30' ovf:diskId='d1' ovf:fileRef='f1' "
    "ovf:format='http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized'/>"
    "<ovf:Disk ovf:capacity='1024' ovf:capacityAllocationUnits='MegaBytes' ovf:diskId='d2'/>"
    "</ovf:DiskSection>"
    "<ovf:VirtualSystem ovf:id='box'><ovf:VirtualHardwareSection>"
    "<ovf:Item><r:ResourceType>3</r:ResourceType><r:VirtualQuantity>2</r:VirtualQuantity></ovf:Item>"
    "<ovf:Item><r:AllocationUnits>MegaBytes</r:AllocationUnits><r:ResourceType>4</r:ResourceType>"
    "<r:VirtualQuantity>2048</r:VirtualQuantity></ovf:Item>"
    "<ovf:Item><r:HostResource>/disk/d1</r:HostResource><r:ResourceType>17</r:ResourceType></ovf:Item>"
    "<ovf:StorageItem><r:HostResource>ovf:/disk/d2</r:HostResource><r:ResourceType>17</r:ResourceType>"
    "</ovf:StorageItem>"
    "<ovf:Item><r:ResourceType>35</r:ResourceType></ovf:Item>"
    "<ovf:Item><r:ResourceType>10</r:ResourceType></ovf:Item>"
    "<ovf:Item><r:ResourceType>10</r:ResourceType></ovf:Item>"
    "<vmw:Config ovf:required='false' vmw:key='firmware' vmw:value='efi'/>"
    "</ovf:VirtualHardwareSection></ovf:VirtualSystem></ovf:Envelope>";

TEST(other_makers_are_understood)
{
    struct ovf o;
    struct error err = {0};

    ASSERT_EQ(ovf_parse(foreign, strlen(foreign), &o, &err), 0);
    EXPECT_STR(o.name, "box");
    EXPECT_EQ(o.cpus, 2);
    EXPECT_EQ(o.memory_bytes, 2048ULL << 20);
    EXPECT_EQ(o.cards, 2);
    EXPECT_TRUE(o.is_efi);
    ASSERT_EQ(o.disk_count, 2);
    EXPECT_EQ(o.disks[0].capacity_bytes, 20ULL << 30);
    EXPECT_STR(o.disks[0].file.name, "box-disk1.vmdk");
    EXPECT_EQ(o.disks[1].capacity_bytes, 1ULL << 30);
    EXPECT_TRUE(!o.disks[1].file.name);
    EXPECT_TRUE(!o.config);
    ovf_done(&o);
}

/** The foreign descriptor with @from replaced by @to. */
static char *changed(const char *from, const char *to)
{
    const char *at = strstr(foreign, from);
    char *text = malloc(sizeof(foreign) + strlen(to));

    ASSERT_TRUE(at && text);
    (void)sprintf(text, "%.*s%s%s", (int)(at - foreign), foreign, to, at + strlen(from));
    return text;
}

TEST(bad_descriptors_are_refused_in_a_sentence)
{
    static const struct {
        const char *from, *to, *why;
    } cases[] = {
        {"box-disk1.vmdk",          "../../etc/passwd",                                  "plain name"   },
        {"ovf:fileRef='f1'",        "ovf:fileRef='f9'",                                  "not there"    },
        {"/disk/d1",                "/disk/d9",                                          "no disk"      },
        {"'byte * 2^30'",           "'byte * 2^99'",                                     "capacity"     },
        {"capacity='20'",           "capacity='99999999999999999999'",                   "capacity"     },
        {">2048<",                  ">99999999999<",                                     "memory"       },
        {">2<",                     ">-2<",                                              "processors"   },
        {"ovf:size='77'",           "ovf:size='77' ovf:compression='gzip'",              "compressed"   },
        {"<ovf:VirtualSystem ",     "<ovf:VirtualSystemCollection/><ovf:VirtualSystem ", "several"      },
        {"<?xml version='1.0'?>\n", "<!DOCTYPE x [<!ENTITY a 'b'>]>",                    "document type"},
        {"<ovf:Envelope",           "<ovf:Other",                                        "not an OVF"   },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct ovf o;
        struct error err = {0};
        char *text = changed(cases[i].from, cases[i].to);

        EXPECT_TRUE(ovf_parse(text, strlen(text), &o, &err) < 0);
        if (!strstr(error_text(&err), cases[i].why))
            EXPECT_STR(error_text(&err), cases[i].why);
        free(text);
    }
}
