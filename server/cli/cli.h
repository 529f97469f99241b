/*
 * What the subcommands of the program share: options, exit statuses, asking a server, printing.
 */
#ifndef SEGUE_CLI_CLI_H
#define SEGUE_CLI_CLI_H

#include "guard/quota.h"
#include "report/json.h"
#include "segue/segue.h"

/* Exit statuses that scripts can rely on; `segue serve --embedded` has its own (cli_serve.c). */
enum {
	SEGUE_CLI_FINE = 0,
	SEGUE_CLI_WRONG = 1, /* not found, no server, cannot be read: the message says what */
	SEGUE_CLI_USAGE = 2, /* the command line, or a variable for an option, was not understood */
	SEGUE_CLI_DAMAGED = 3, /* verify, backup, restore: the store is damaged */
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
	SEGUE_CLI_LANE = 1u << 16,
	SEGUE_CLI_ID = 1u << 17,
	SEGUE_CLI_STEP = 1u << 18,
	SEGUE_CLI_ALL = 1u << 19,
};

/* Values of an option that may be given several times. */
struct segue_cli_list {
	const char **item;
	size_t count;
};

struct segue_cli_options {
	const char *action;     /* what stands before the operands, where the command has actions */
	const char *dir;        /* first operand; NULL if it may be left out and is */
	const char *key;        /* second operand, or NULL */
	const char *socket;     /* --socket, else $SEGUE_SOCKET, else NULL */
	const char *stream;     /* --stream, or NULL */
	uint64_t map_bytes;     /* --map-size; 0: not given */
	int64_t lane, id, step; /* --lane, --id, --step; -1: not given */
	bool json, embedded, all, progress, if_due, force, assume_local;
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
};

extern const struct segue_cli_command segue_cli_serve, segue_cli_status, segue_cli_inspect,
	segue_cli_get, segue_cli_checkpoint, segue_cli_verify, segue_cli_backup, segue_cli_restore,
	segue_cli_doctor;

/*
 * Parses argv (argv[0] is the name of the subcommand) and runs it. --help prints to stdout. Returns
 * the exit status.
 */
int segue_cli_run(const struct segue_cli_command *command, int argc, char **argv);

/* Prints "segue: <this thread's detail>" to stderr; SEGUE_CLI_WRONG. */
int segue_cli_fail(void);
/* Names the command's --help on stderr, after a message; SEGUE_CLI_USAGE. */
int segue_cli_usage(const struct segue_cli_command *command);

/* `path` made absolute, with symbolic links resolved if it exists; malloc'd. NULL: no memory. */
char *segue_cli_absolute(const char *path);

/*
 * What was made or renamed in a directory is on disk when this returns: in this one or, with `above`,
 * in the one that it is in.
 */
int segue_cli_sync(const char *directory, bool above);

/*
 * A report, from the running server, or, if none runs and the report is one of the store, from the
 * store itself. `what` is not VERIFY. SEGUE_EGONE: STATUS, and no server runs; else what client and
 * store say. The caller frees *json.
 */
int segue_cli_report(const struct segue_cli_options *options, enum segue_report what, char **json);

/*
 * Whether a process holds the store directory: 1 and *pid (0 if it is not known), or 0; negative if
 * that cannot be seen.
 */
int segue_cli_lock_holder(const char *dir, long *pid);

/* ---- A process of its own, which a damaged file may kill ---- */

struct segue_cli_task {
	const char *what; /* "verifying the store": for the line that shows progress */
	/*
	 * In the process of its own: a code, and a report (malloc'd) or NULL; of SEGUE_ESTORE too.
	 * Shows progress by segue_cli_progress().
	 */
	int (*run)(void *arg, char **report);
	void *arg;
	bool lines; /* --progress: lines of JSON on standard output, not one on the terminal */
};

/*
 * Runs the task in a child, which dies with this process. Its code, and its report; with a code but
 * no report the detail is the child's. A child that ended by SIGBUS, SIGSEGV, SIGABRT, SIGFPE or
 * SIGILL is SEGUE_ESTORE, with *report NULL and a detail: reading the file has ended it. Killed by
 * another signal it is SEGUE_ESYSTEM: nothing is known of the store. SIGXFSZ is ignored in it.
 */
int segue_cli_child(const struct segue_cli_task *task, char **report);
/* A segue_progress_fn for the task; `arg` is not looked at. */
void segue_cli_progress(void *arg, const char *what, uint64_t done, uint64_t total);

/* ---- Printing ---- */

/*
 * Prints a report: the JSON as it is, or what `print` makes of it. Takes `json` over; returns the
 * exit status.
 */
int segue_cli_show(const struct segue_cli_options *options, char *json,
	void (*print)(
		const struct segue_cli_options *options, const struct segue_json_value *report));

/* Text for a terminal: what is not printable UTF-8 is written as \xNN. malloc'd. */
char *segue_cli_printable(const char *bytes, size_t size);
/* The same of the value of that name; "" if there is none. */
char *segue_cli_text(const struct segue_json_value *object, const char *name);

/* A table of texts, printed with aligned columns. */
struct segue_cli_table {
	size_t columns, count;
	char **cell; /* count of them, row by row; the first row is the header */
};

/* Begins a table with its header line: `columns` texts. */
void segue_cli_table_init(
	struct segue_cli_table *table, size_t columns, const char *const headers[]);
/* One cell more. */
void segue_cli_table_add(struct segue_cli_table *table, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* The value of that name as it stands in the JSON; "-" if it is null or not there. */
void segue_cli_table_value(
	struct segue_cli_table *table, const struct segue_json_value *object, const char *name);
/* Prints it to stdout, each line after `indent` spaces, and frees it. Without rows: nothing. */
void segue_cli_table_print(struct segue_cli_table *table, int indent);
/* Frees it. */
void segue_cli_table_finish(struct segue_cli_table *table);

/* "12.3 MiB"; "45 s", "3 h 12 min": into `text`, which is returned. */
const char *segue_cli_bytes(uint64_t bytes, char text[32]);
const char *segue_cli_duration(uint64_t seconds, char text[32]);

#endif
