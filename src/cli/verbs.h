/* The verbs, each in its own file. */
#ifndef CLI_VERBS_H
#define CLI_VERBS_H

#include "cli/cmd.h"

extern const struct cmd cmd_autostart;
extern const struct cmd cmd_completion;
extern const struct cmd cmd_console;
extern const struct cmd cmd_copy;
extern const struct cmd cmd_cp;
extern const struct cmd cmd_delete;
extern const struct cmd cmd_disk;
extern const struct cmd cmd_doctor;
extern const struct cmd cmd_edit;
extern const struct cmd cmd_events;
extern const struct cmd cmd_exec;
extern const struct cmd cmd_export;
extern const struct cmd cmd_get;
extern const struct cmd cmd_help;
extern const struct cmd cmd_image;
extern const struct cmd cmd_import;
extern const struct cmd cmd_info;
extern const struct cmd cmd_launch;
extern const struct cmd cmd_create;
extern const struct cmd cmd_list;
extern const struct cmd cmd_logs;
extern const struct cmd cmd_pause;
extern const struct cmd cmd_rename;
extern const struct cmd cmd_restart;
extern const struct cmd cmd_resume;
extern const struct cmd cmd_run;
extern const struct cmd cmd_set;
extern const struct cmd cmd_shell;
extern const struct cmd cmd_snapshot;
extern const struct cmd cmd_snapshot_info;
extern const struct cmd cmd_snapshot_list;
extern const struct cmd cmd_start;
extern const struct cmd cmd_stop;
extern const struct cmd cmd_top;
extern const struct cmd cmd_version;
extern const struct cmd cmd_wait;

/** Print the version, as text or JSON; an exit status. */
int version_print(bool json);

#endif
