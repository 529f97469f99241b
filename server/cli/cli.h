/*
 * The command line: what a subcommand is, its options, its exit status.
 */
#ifndef SEGUE_CLI_CLI_H
#define SEGUE_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guard/guard.h"

/* Exit statuses that scripts can rely on; `segue serve --embedded` has its own (serve.c). */
enum {
	SEGUE_CLI_FINE = 0,
	SEGUE_CLI_WRONG = 1, /* not found, no server, cannot be read: the message says what */
	SEGUE_CLI_USAGE = 2, /* the command line, or a variable for an option, was not understood */
	SEGUE_CLI_DAMAGED = 3, /* verify, backup, restore: the store is; repair: the file */
};

/* Options that a subcommand takes. */
enum {
	SEGUE_CLI_JSON = 1u << 0,
	SEGUE_CLI_SOCKET = 1u << 1,
	SEGUE_CLI_STREAM = 1u << 2,
	SEGUE_CLI_EMBEDDED = 1u << 3,
	SEGUE_CLI_SERVICE = 1u << 4, /* limits, roots, who may connect */
	SEGUE_CLI_PROGRESS = 1u << 8,
	SEGUE_CLI_IF_DUE = 1u << 9,
	SEGUE_CLI_FORCE = 1u << 10,
	SEGUE_CLI_MAP_SIZE = 1u << 11,
	SEGUE_CLI_PORTABLE = 1u << 12,
	SEGUE_CLI_LANE = 1u << 16,
	SEGUE_CLI_ID = 1u << 17,
	SEGUE_CLI_STEP = 1u << 18,
	SEGUE_CLI_ALL = 1u << 19,
	SEGUE_CLI_YES = 1u << 20,
	SEGUE_CLI_FORCE_CUT = 1u << 21,
	SEGUE_CLI_DRY_RUN = 1u << 22, /* also -n */
	SEGUE_CLI_ALL_RECORDS = 1u << 23,
	SEGUE_CLI_GROUP = 1u << 24,
	SEGUE_CLI_REFRESHES = 1u << 25, /* --once, --count, also -n */
	SEGUE_CLI_OPENMETRICS = 1u << 26,
};

/* Values of an option that may be given several times. */
struct segue_cli_list {
	const char **item;
	size_t count;
};

struct segue_cli_options {
	const char *action;    /* what stands before the operands, where the command has actions */
	const char *dir;       /* first operand; NULL if it may be left out and is */
	const char *key;       /* second operand, or NULL */
	char *const *operands; /* all of them */
	int operand_count;
	const char *socket;     /* --socket, else $SEGUE_SOCKET, else NULL */
	const char *stream;     /* --stream, or NULL */
	const char *group;      /* --group, or NULL */
	int64_t map_mib;        /* --map-size; 0: not given */
	int64_t lane, id, step; /* --lane, --id, --step; -1: not given */
	int64_t count;          /* --count; 0: not given */
	bool json, embedded, all, yes, progress, if_due, force, dry_run, assume_local, portable;
	bool once, openmetrics;
	struct segue_cli_list roots, users, groups;
	const char *limits[SEGUE_LIMIT_COUNT]; /* NULL: not given */
};

struct segue_cli_command {
	const char *name;
	const char *operands; /* for the usage line: "DIR KEY" */
	const char *summary;  /* one line */
	const char *help;     /* what follows the options in --help */
	unsigned takes;       /* SEGUE_CLI_JSON, ... */
	bool acts;            /* one operand more, the first: an action */
	int operands_min, operands_max;
	int (*run)(const struct segue_cli_options *options); /* exit status */
	int (*run_line)(int argc, char **argv);              /* instead: gets the line as it is */
};

extern const struct segue_cli_command segue_cli_serve, segue_cli_status, segue_cli_top,
	segue_cli_inspect, segue_cli_get, segue_cli_checkpoint, segue_cli_stream, segue_cli_verify,
	segue_cli_backup, segue_cli_restore, segue_cli_repair, segue_cli_peek, segue_cli_convert,
	segue_cli_doctor;

/*
 * Parses argv (argv[0] is the name of the subcommand) and runs it. --help prints to stdout. Returns
 * the exit status.
 */
int segue_cli_run(const struct segue_cli_command *command, int argc, char **argv);

/* For a program that prints and ends: memory that there is, or the end. */
void *segue_cli_need(void *memory);
/*
 * Whether a terminal would obey the character of `length` bytes (0: these are none): one of the
 * control characters, of both sets.
 */
bool segue_cli_is_control(const char *at, size_t length);
/* Text, malloc'd: \xNN in place of each byte of what is a control character or no UTF-8. */
char *segue_cli_printable(const char *bytes, size_t size);
/* Prints "segue: <this thread's detail>" to stderr, made printable; SEGUE_CLI_WRONG. */
int segue_cli_fail(void);
/* Names the command's --help on stderr, after a message; SEGUE_CLI_USAGE. */
int segue_cli_usage(const struct segue_cli_command *command);

#endif
