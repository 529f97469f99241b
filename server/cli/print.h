/* Printing of reports: for a terminal, whatever a server or a store has said. */
#ifndef SEGUE_CLI_PRINT_H
#define SEGUE_CLI_PRINT_H

#include "cli/cli.h"
#include "report/json.h"

/*
 * Prints a report: the JSON as it is, or what `print` makes of it. Takes `json` over; returns the
 * exit status.
 */
int segue_cli_show(const struct segue_cli_options *options, char *json,
	void (*print)(const struct segue_cli_options *options, struct json_object *report));

/*
 * A value as text, which lives as long as the value: a number with its digits, a string with \xNN
 * in place of what is not printable UTF-8. "" for NULL.
 */
const char *segue_cli_text(struct json_object *value);
/* The same of the value of that name. */
const char *segue_cli_member(struct json_object *object, const char *name);
/* "yes" or "no": whether the value of that name is true. */
const char *segue_cli_yes(struct json_object *object, const char *name);
/* Of a field, its name, dtype and shape: "h float32[3]". */
void segue_cli_print_field(const char *name, struct json_object *field);

struct segue_cli_column {
	const char *header, *name; /* name of the value in JSON */
	bool bytes;                /* it is a size */
};

/* A table of texts, printed with aligned columns. */
struct segue_cli_table {
	const struct segue_cli_column *column;
	size_t columns, count;
	char **cell; /* count of them, row by row; the first row is the header */
};

/* Begins a table with its header line. */
void segue_cli_table_init(
	struct segue_cli_table *table, const struct segue_cli_column column[], size_t columns);
/*
 * The same of lanes, or what they have, where the first column is the name of the group: it is left
 * out where none of `lanes` is of a group that has one.
 */
void segue_cli_groups_init(struct segue_cli_table *table, const struct segue_cli_column column[],
	size_t columns, struct json_object *lanes);
/*
 * Adds a row: the values of `object` or, where it has none of that name, of `around`, which may be
 * NULL. "-" if a value is null or not there; of an array, how many it holds.
 */
void segue_cli_table_row(
	struct segue_cli_table *table, struct json_object *object, struct json_object *around);
/* Prints it to stdout, each line after `indent` spaces, and frees it. Without rows: nothing. */
void segue_cli_table_print(struct segue_cli_table *table, int indent);

/* A line that shows how far long work has come; begins zeroed, with `lines` set or not. */
struct segue_cli_progress {
	bool lines; /* --progress: lines of JSON on standard output, not one on the terminal */
	int64_t begun_ns; /* 0: not yet */
	int64_t shown_ns; /* 0: no line is on the terminal */
};
/* A segue_progress_fn; `progress` is a struct segue_cli_progress. */
void segue_cli_show_progress(void *progress, const char *what, uint64_t done, uint64_t total);
/* Takes the line from the terminal. */
void segue_cli_end_progress(const struct segue_cli_progress *progress);

/* "12.3 MiB"; "45 s", "3 h 12 min": into `text`, which is returned. */
const char *segue_cli_bytes(uint64_t bytes, char text[32]);
const char *segue_cli_duration(uint64_t seconds, char text[32]);

#endif
