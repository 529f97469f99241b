/* Printing of reports, as JSON or for people. */
#include "cli/print.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "core/error.h"
#include "core/utf8.h"
#include "core/wait.h"

#define SHOW_NS INT64_C(500000000) /* between two looks at the line on the terminal */

/* A server may be anybody's: what a terminal would obey is escaped, as JSON allows it in texts. */
static void print_json(const char *json)
{
	for (size_t size = strlen(json), step; size > 0; json += step, size -= step) {
		size_t length = segue_utf8_next(json, size);
		step = length ? length : 1;
		if (segue_cli_is_control(json, length))
			printf("\\u%04x", (unsigned char)json[length - 1]);
		else
			fwrite(json, 1, step, stdout);
	}
	putchar('\n');
}

int segue_cli_show(const struct segue_cli_options *options, char *json,
	void (*print)(const struct segue_cli_options *options, struct json_object *report))
{
	struct json_object *report = NULL;
	int rc = 0;

	if (options->json)
		print_json(json);
	else if (!(rc = segue_json_parse(json, &report)))
		print(options, report);
	json_object_put(report);
	segue_free(json);
	return rc ? segue_cli_fail() : SEGUE_CLI_FINE;
}

/* ---- Texts ---- */

const char *segue_cli_text(struct json_object *value)
{
	const char *text = value ? json_object_get_string(value) : "";
	enum json_type type = json_object_get_type(value);

	if (type != json_type_string && type != json_type_array && type != json_type_object)
		return text ? text : "";
	if (json_object_get_userdata(value))
		return json_object_get_userdata(value);
	char *shown = segue_cli_printable(text, type == json_type_string
							? (size_t)json_object_get_string_len(value)
							: strlen(text));
	json_object_set_userdata(value, shown, json_object_free_userdata);
	return shown;
}

const char *segue_cli_member(struct json_object *object, const char *name)
{
	return segue_cli_text(json_object_object_get(object, name));
}

const char *segue_cli_yes(struct json_object *object, const char *name)
{
	return segue_json_get_bool(object, name) ? "yes" : "no";
}

void segue_cli_print_field(const char *name, struct json_object *field)
{
	struct json_object *shape = json_object_object_get(field, "shape");

	printf("%s %s[", name, segue_cli_member(field, "dtype"));
	for (size_t i = 0; i < segue_json_count(shape); i++)
		printf("%s%s", i ? ", " : "", segue_cli_text(segue_json_at(shape, i)));
	putchar(']');
}

/* ---- Tables ---- */

/* Takes `text` over. */
static void add_cell(struct segue_cli_table *table, char *text)
{
	table->cell =
		segue_cli_need(realloc(table->cell, (table->count + 1) * sizeof(*table->cell)));
	table->cell[table->count++] = segue_cli_need(text);
}

void segue_cli_table_init(
	struct segue_cli_table *table, const struct segue_cli_column column[], size_t columns)
{
	*table = (struct segue_cli_table){.column = column, .columns = columns};
	for (size_t i = 0; i < columns; i++)
		add_cell(table, strdup(column[i].header));
}

void segue_cli_groups_init(struct segue_cli_table *table, const struct segue_cli_column column[],
	size_t columns, struct json_object *lanes)
{
	bool named = false;

	for (size_t i = 0; i < segue_json_count(lanes); i++)
		named |= json_object_object_get(segue_json_at(lanes, i), "group_name") != NULL;
	segue_cli_table_init(table, named ? column : column + 1, named ? columns : columns - 1);
}

void segue_cli_table_row(
	struct segue_cli_table *table, struct json_object *object, struct json_object *around)
{
	for (size_t i = 0; i < table->columns; i++) {
		const struct segue_cli_column *column = &table->column[i];
		struct json_object *value = NULL;
		char number[32];
		const char *text = number;
		if (!json_object_object_get_ex(object, column->name, &value))
			value = json_object_object_get(around, column->name);
		if (!value)
			text = "-";
		else if (column->bytes)
			segue_cli_bytes(json_object_get_uint64(value), number);
		else if (json_object_is_type(value, json_type_array))
			snprintf(number, sizeof(number), "%zu", segue_json_count(value));
		else if (json_object_is_type(value, json_type_boolean))
			text = json_object_get_boolean(value) ? "yes" : "no";
		else
			text = segue_cli_text(value);
		add_cell(table, strdup(text));
	}
}

/* Characters of valid UTF-8. */
static int width_of(const char *text)
{
	int width = 0;

	for (; *text; text++)
		width += ((unsigned char)*text & 0xc0) != 0x80;
	return width;
}

static bool is_figure(const char *text)
{
	return (*text >= '0' && *text <= '9') || strcmp(text, "-") == 0;
}

static void print_cell(const char *text, int width, bool right, bool last)
{
	int blank = width - width_of(text);

	if (right)
		printf("%*s%s", blank, "", text);
	else
		printf("%s%*s", text, last ? 0 : blank, "");
	fputs(last ? "\n" : "  ", stdout);
}

static void finish_table(struct segue_cli_table *table)
{
	for (size_t i = 0; i < table->count; i++)
		free(table->cell[i]);
	free(table->cell);
}

void segue_cli_table_print(struct segue_cli_table *table, int indent)
{
	size_t columns = table->columns;
	int *width = segue_cli_need(calloc(columns + 1, sizeof(*width)));
	bool *right = segue_cli_need(calloc(columns + 1, sizeof(*right)));

	for (size_t i = 0; i < table->count; i++) {
		size_t column = i % columns;
		int wanted = width_of(table->cell[i]);
		width[column] = wanted > width[column] ? wanted : width[column];
		right[column] = i < columns || (right[column] && is_figure(table->cell[i]));
	}
	for (size_t i = 0; table->count > columns && i < table->count; i++) {
		size_t column = i % columns;
		if (column == 0)
			printf("%*s", indent, "");
		print_cell(table->cell[i], width[column], right[column], column == columns - 1);
	}
	free(width);
	free(right);
	finish_table(table);
}

/* ---- Progress ---- */

void segue_cli_show_progress(void *arg, const char *what, uint64_t done, uint64_t total)
{
	struct segue_cli_progress *progress = arg;
	int64_t now = segue_now_ns();
	char done_text[32], total_text[32];

	if (progress->lines) {
		printf("{\"progress\": {\"done\": %" PRIu64 ", \"total\": %" PRIu64 "}}\n", done,
			total);
		fflush(stdout);
		return;
	}
	if (!progress->begun_ns)
		progress->begun_ns = now;
	if (isatty(STDERR_FILENO) != 1 || now - progress->begun_ns < 2 * SHOW_NS ||
		now - progress->shown_ns < SHOW_NS)
		return;
	progress->shown_ns = now;
	fprintf(stderr, "\r%s: %s of %s\x1b[K", what, segue_cli_bytes(done, done_text),
		segue_cli_bytes(total, total_text));
}

void segue_cli_end_progress(const struct segue_cli_progress *progress)
{
	if (progress->shown_ns)
		fputs("\r\x1b[K", stderr);
}

/* ---- Figures ---- */

const char *segue_cli_bytes(uint64_t bytes, char text[32])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	size_t unit = 0;

	while (value >= 1024 && unit < 6) {
		value /= 1024;
		unit++;
	}
	snprintf(text, 32, "%.*f %s", unit && value < 100 ? 1 : 0, value, units[unit]);
	return text;
}

const char *segue_cli_duration(uint64_t seconds, char text[32])
{
	unsigned s = (unsigned)(seconds % 60), min = (unsigned)(seconds / 60 % 60),
		 h = (unsigned)(seconds / 3600 % 24);
	uint64_t days = seconds / 86400;

	if (days)
		snprintf(text, 32, "%" PRIu64 " d %u h", days, h);
	else if (h)
		snprintf(text, 32, "%u h %u min", h, min);
	else if (min)
		snprintf(text, 32, "%u min %u s", min, s);
	else
		snprintf(text, 32, "%u s", s);
	return text;
}
