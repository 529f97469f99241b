/* What the subcommands of the program share. */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "core/error.h"
#include "core/spec.h"
#include "core/utf8.h"
#include "core/wait.h"
#include "report/request.h"

#define ANSWER_WITHIN_NS INT64_C(10000000000)
#define SETTLE_WITHIN_NS INT64_C(2000000000)

enum { LOOK_AGAIN_US = 20000, MEBIBYTES_MAX = 1 << 20 };

/* ---- Command line ---- */

/* For a program that prints and ends there is nothing better to do. */
static void *need(void *memory)
{
	if (!memory) {
		fputs("segue: out of memory\n", stderr);
		exit(SEGUE_CLI_WRONG);
	}
	return memory;
}

static const struct {
	unsigned flag; /* 0: every subcommand takes it */
	struct option option;
	const char *argument, *text;
} known_options[] = {
	{SEGUE_CLI_JSON, {"json", no_argument, NULL, 'j'}, "", "print one line of JSON"},
	{SEGUE_CLI_STREAM, {"stream", required_argument, NULL, 't'}, " NAME", "this stream alone"},
	{SEGUE_CLI_SOCKET, {"socket", required_argument, NULL, 's'}, " PATH",
		"socket of the server; default: $SEGUE_SOCKET, else DIR/segue.sock"},
	{SEGUE_CLI_EMBEDDED, {"embedded", no_argument, NULL, 'e'}, "",
		"run in the background until the last client has left"},
	{SEGUE_CLI_SERVICE, {"root", required_argument, NULL, 'r'}, " DIR",
		"read files beneath DIR alone; may be given again; default: $SEGUE_ROOT"},
	{SEGUE_CLI_SERVICE, {"allow-user", required_argument, NULL, 'u'}, " USER",
		"let this user in, too (name or uid); needs --root; $SEGUE_ALLOW_USER"},
	{SEGUE_CLI_SERVICE, {"allow-group", required_argument, NULL, 'g'}, " GROUP",
		"let the members of this group in; needs --root; $SEGUE_ALLOW_GROUP"},
	{SEGUE_CLI_SERVICE, {"assume-local", no_argument, NULL, 'o'}, "",
		"no other machine writes to DIR's file system; $SEGUE_ASSUME_LOCAL=1"},
	{SEGUE_CLI_IF_DUE, {"if-due", no_argument, NULL, 'd'}, "",
		"only if the last end of the server makes it necessary"},
	{SEGUE_CLI_MAP_SIZE, {"map-size", required_argument, NULL, 'm'}, " MIB",
		"the store cannot grow beyond so many MiB (1 to 1048576)"},
	{SEGUE_CLI_FORCE, {"force", no_argument, NULL, 'f'}, "",
		"also if there is a store: it is kept beside the new one"},
	{SEGUE_CLI_PROGRESS, {"progress", no_argument, NULL, 'p'}, "",
		"print lines of JSON that tell the progress, before the report"},
	{SEGUE_CLI_LANE, {"lane", required_argument, NULL, 'l'}, " N", "this lane alone"},
	{SEGUE_CLI_ID, {"id", required_argument, NULL, 'i'}, " N", "of this id"},
	{SEGUE_CLI_STEP, {"step", required_argument, NULL, 'n'}, " N", "of this step"},
	{SEGUE_CLI_ALL, {"all", no_argument, NULL, 'a'}, "", "whatever id and step"},
	{0, {"help", no_argument, NULL, 'h'}, "", "print this text"}, /* the last */
};

enum {
	OPTION_COUNT = sizeof(known_options) / sizeof(known_options[0]),
	LIMIT_LETTER = 256, /* the first limit's; beyond any character */
};

static void print_option(const char *name, const char *argument, const char *text)
{
	char left[64];

	snprintf(left, sizeof(left), "--%s%s", name, argument);
	printf("  %-24s %s\n", left, text);
}

static void print_limits(void)
{
	char text[256];

	for (unsigned i = 0; i < SEGUE_LIMIT_COUNT; i++) {
		const struct segue_limit_info *info = segue_limit_info(i);
		snprintf(text, sizeof(text), "%s [%s]", info->text, info->normal);
		print_option(info->flag, info->unit, text);
	}
}

static void print_help(const struct segue_cli_command *command)
{
	printf("Usage: segue %s %s [OPTION]...\n\n%s\n\nOptions:\n", command->name,
		command->operands, command->summary);
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		if (known_options[i].flag && !(command->takes & known_options[i].flag))
			continue;
		if (i == OPTION_COUNT - 1 && (command->takes & SEGUE_CLI_SERVICE))
			print_limits();
		print_option(known_options[i].option.name, known_options[i].argument,
			known_options[i].text);
	}
	printf("\n%s", command->help);
}

static void options_of(const struct segue_cli_command *command, struct option *out)
{
	size_t count = 0;

	for (size_t i = 0; i < OPTION_COUNT; i++) {
		if (!known_options[i].flag || (command->takes & known_options[i].flag))
			out[count++] = known_options[i].option;
	}
	for (unsigned i = 0; (command->takes & SEGUE_CLI_SERVICE) && i < SEGUE_LIMIT_COUNT; i++)
		out[count++] = (struct option){
			segue_limit_info(i)->flag, required_argument, NULL, LIMIT_LETTER + (int)i};
	out[count] = (struct option){0};
}

int segue_cli_usage(const struct segue_cli_command *command)
{
	fprintf(stderr, "Try 'segue %s --help'.\n", command->name);
	return SEGUE_CLI_USAGE;
}

/* A client that starts a server reads the status as an error code. */
static int usage_status(const struct segue_cli_command *command, int argc, char **argv)
{
	for (int i = 1; (command->takes & SEGUE_CLI_EMBEDDED) && i < argc; i++) {
		if (strcmp(argv[i], "--embedded") == 0)
			return -SEGUE_EINVAL;
	}
	return segue_cli_usage(command);
}

/* False: usage. */
static bool take_operands(const struct segue_cli_command *command, int argc, char **argv,
	struct segue_cli_options *options)
{
	if (command->acts && optind < argc)
		options->action = argv[optind++];
	int count = argc - optind;

	if (count < command->operands_min || count > command->operands_max) {
		fprintf(stderr, "segue %s: wants %s, got %d operand%s\n", command->name,
			command->operands, count, count == 1 ? "" : "s");
		return false;
	}
	if (count > 0)
		options->dir = argv[optind];
	if (count > 1)
		options->key = argv[optind + 1];
	if (count > 0 && !*options->dir) {
		fprintf(stderr, "segue %s: DIR is empty\n", command->name);
		return false;
	}
	return true;
}

/* `of`: " of MiB", or nothing. False: usage. */
static bool take_number(const char *option, const char *of, const char *text, int64_t least,
	int64_t most, int64_t *out)
{
	char *end;

	errno = 0;
	long long value = strtoll(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || value < least || value > most) {
		fprintf(stderr, "segue: --%s is '%s': give a number%s from %lld to %lld\n", option,
			text, of, (long long)least, (long long)most);
		return false;
	}
	*out = value;
	return true;
}

/* False: usage. */
static bool take_mebibytes(const char *option, const char *text, uint64_t *bytes)
{
	int64_t value;

	if (!take_number(option, " of MiB", text, 1, MEBIBYTES_MAX, &value))
		return false;
	*bytes = (uint64_t)value << 20;
	return true;
}

static void default_socket(struct segue_cli_options *options)
{
	const char *socket = getenv("SEGUE_SOCKET");

	/* A client that starts a server says where it will look for it. */
	if (!options->socket && socket && *socket && !options->embedded)
		options->socket = socket;
}

static void add_item(struct segue_cli_list *list, const char *item)
{
	list->item = need(realloc(list->item, (list->count + 1) * sizeof(*list->item)));
	list->item[list->count++] = item;
}

static int run_with(const struct segue_cli_command *command, int argc, char **argv,
	struct segue_cli_options *options)
{
	struct option accepted[OPTION_COUNT + SEGUE_LIMIT_COUNT + 1];
	char name[32];
	int letter, index;

	options_of(command, accepted);
	snprintf(name, sizeof(name), "segue %s", command->name);
	argv[0] = name; /* getopt's messages begin with it */
	while ((letter = getopt_long(argc, argv, "h", accepted, &index)) != -1) {
		switch (letter) {
		case 'j':
			options->json = true;
			break;
		case 't':
			options->stream = optarg;
			break;
		case 's':
			options->socket = optarg;
			break;
		case 'e':
			options->embedded = true;
			break;
		case 'r':
			add_item(&options->roots, optarg);
			break;
		case 'u':
			add_item(&options->users, optarg);
			break;
		case 'g':
			add_item(&options->groups, optarg);
			break;
		case 'o':
			options->assume_local = true;
			break;
		case 'd':
			options->if_due = true;
			break;
		case 'm':
			if (!take_mebibytes(accepted[index].name, optarg, &options->map_bytes))
				return usage_status(command, argc, argv);
			break;
		case 'f':
			options->force = true;
			break;
		case 'p':
			options->progress = true;
			break;
		case 'l':
			if (!take_number(accepted[index].name, "", optarg, 0, SEGUE_LANES_MAX - 1,
				    &options->lane))
				return usage_status(command, argc, argv);
			break;
		case 'i':
		case 'n':
			if (!take_number(accepted[index].name, "", optarg, 0, INT64_MAX,
				    letter == 'i' ? &options->id : &options->step))
				return usage_status(command, argc, argv);
			break;
		case 'a':
			options->all = true;
			break;
		case 'h':
			print_help(command);
			return SEGUE_CLI_FINE;
		default:
			if (letter < LIMIT_LETTER)
				return usage_status(command, argc, argv);
			options->limits[letter - LIMIT_LETTER] = optarg;
		}
	}
	if (!take_operands(command, argc, argv, options))
		return usage_status(command, argc, argv);
	default_socket(options);
	return command->run(options);
}

int segue_cli_run(const struct segue_cli_command *command, int argc, char **argv)
{
	struct segue_cli_options options = {.lane = -1, .id = -1, .step = -1};

	int status = run_with(command, argc, argv, &options);
	free(options.roots.item);
	free(options.users.item);
	free(options.groups.item);
	return status;
}

int segue_cli_fail(void)
{
	fflush(stdout);
	fprintf(stderr, "segue: %s\n", segue_error_detail());
	return SEGUE_CLI_WRONG;
}

/* ---- Directories and servers ---- */

char *segue_cli_absolute(const char *path)
{
	char *cwd, *out = realpath(path, NULL);

	if (out || *path == '/')
		return out ? out : strdup(path);
	cwd = getcwd(NULL, 0);
	while (path[0] == '.' && path[1] == '/')
		path += 2;
	if (!cwd || asprintf(&out, "%s/%s", cwd, path) < 0)
		out = NULL;
	free(cwd);
	return out;
}

int segue_cli_sync(const char *directory, bool above)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
	int rc = 0, fd = open(directory, flags);

	if (fd >= 0 && above) {
		int inner = fd;
		fd = openat(inner, "..", flags);
		close(inner);
	}
	if (fd < 0 || fsync(fd) < 0)
		rc = segue_fail_errno(SEGUE_ESYSTEM, "cannot sync %s%s",
			above ? "the directory above " : "", directory);
	if (fd >= 0)
		close(fd);
	return rc;
}

static int ask_server(const struct segue_cli_options *options, enum segue_report what, char **json)
{
	const struct segue_open_options how = {
		.socket_path = options->socket, .no_start = true, .timeout_ns = ANSWER_WITHIN_NS};
	struct segue_client *client;

	int rc = segue_open(options->dir, &how, &client);
	if (rc)
		return rc;
	rc = segue_client_report(client, what, options->stream, options->key, json);
	segue_client_close(client);
	return rc;
}

static int ask_store(const struct segue_cli_options *options, enum segue_report what, char **json)
{
	struct segue_store *store;

	int rc = segue_store_open(options->dir, SEGUE_STORE_READ, &store);
	if (rc)
		return rc;
	rc = segue_report_store(store, options->dir, what, options->stream ? options->stream : "",
		options->key ? options->key : "", json);
	segue_store_close(store);
	return rc;
}

/* The server of the directory runs, but not where we looked. */
static int fail_elsewhere(const struct segue_cli_options *options)
{
	char detail[SEGUE_DETAIL_MAX];

	snprintf(detail, sizeof(detail), "%s", segue_error_detail());
	return segue_fail(SEGUE_EBUSY,
		"%s, but does not answer at %s%s: give its socket with --socket", detail,
		options->socket ? options->socket : options->dir,
		options->socket ? "" : "/segue.sock");
}

int segue_cli_report(const struct segue_cli_options *options, enum segue_report what, char **json)
{
	int64_t until = segue_now_ns() + SETTLE_WITHIN_NS;
	long pid;

	/* A server that is coming or going holds the directory, and does not answer. */
	for (;; usleep(LOOK_AGAIN_US)) {
		bool late = segue_now_ns() >= until;
		int rc = ask_server(options, what, json);
		if (rc != SEGUE_EGONE)
			return rc;
		if (what == SEGUE_REPORT_STATUS) {
			if (late || segue_cli_lock_holder(options->dir, &pid) != 1)
				return rc;
			continue;
		}
		rc = ask_store(options, what, json);
		if (rc != SEGUE_EBUSY)
			return rc;
		if (late)
			return fail_elsewhere(options);
	}
}

int segue_cli_lock_holder(const char *dir, long *pid)
{
	char text[32] = "";
	int held = 0, fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 && errno == ENOTDIR)
		return segue_fail_no_directory(dir);
	if (fd < 0)
		return segue_fail_errno(
			errno == ENOENT ? SEGUE_ENOTFOUND : SEGUE_ESYSTEM, "%s", dir);
	/* Shared, as a reader takes it: readers do not count as holders. */
	if (flock(fd, LOCK_SH | LOCK_NB) < 0)
		held = errno == EWOULDBLOCK ? 1 : segue_fail_errno(SEGUE_ESYSTEM, "lock %s", dir);
	if (held == 1) {
		int file = openat(fd, "server.pid", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
		if (file >= 0 && read(file, text, sizeof(text) - 1) < 0)
			text[0] = '\0';
		if (file >= 0)
			close(file);
		*pid = strtol(text, NULL, 10);
	}
	close(fd);
	return held;
}

/* ---- Printing ---- */

/* Control characters, of both sets, would be obeyed by a terminal. */
static bool is_control(const char *at, size_t length)
{
	const unsigned char *byte = (const unsigned char *)at;

	return byte[0] < 0x20 || byte[0] == 0x7f ||
	       (length == 2 && byte[0] == 0xc2 && byte[1] < 0xa0);
}

char *segue_cli_printable(const char *bytes, size_t size)
{
	char *out = need(malloc(4 * size + 1)), *to = out;

	while (size > 0) {
		size_t length = segue_utf8_next(bytes, size), step = length ? length : 1;
		if (length && !is_control(bytes, length)) {
			memcpy(to, bytes, length);
			to += length;
		} else {
			for (size_t i = 0; i < step; i++)
				to += sprintf(to, "\\x%02x", (unsigned char)bytes[i]);
		}
		bytes += step;
		size -= step;
	}
	*to = '\0';
	return out;
}

char *segue_cli_text(const struct segue_json_value *object, const char *name)
{
	const struct segue_json_value *value = segue_json_get(object, name);

	return value && value->text ? segue_cli_printable(value->text, value->size)
				    : segue_cli_printable("", 0);
}

int segue_cli_show(const struct segue_cli_options *options, char *json,
	void (*print)(
		const struct segue_cli_options *options, const struct segue_json_value *report))
{
	struct segue_json_value *report;
	int rc = 0;

	if (options->json) {
		puts(json);
	} else if (!(rc = segue_json_parse(json, strlen(json), &report))) {
		print(options, report);
		segue_json_destroy(report);
	}
	segue_free(json);
	return rc ? segue_cli_fail() : SEGUE_CLI_FINE;
}

static void add_cell(struct segue_cli_table *table, char *text)
{
	table->cell = need(realloc(table->cell, (table->count + 1) * sizeof(*table->cell)));
	table->cell[table->count++] = text;
}

void segue_cli_table_init(
	struct segue_cli_table *table, size_t columns, const char *const headers[])
{
	*table = (struct segue_cli_table){.columns = columns};
	for (size_t i = 0; i < columns; i++)
		add_cell(table, need(strdup(headers[i])));
}

void segue_cli_table_add(struct segue_cli_table *table, const char *format, ...)
{
	va_list arguments;
	char *text;

	va_start(arguments, format);
	int size = vasprintf(&text, format, arguments);
	va_end(arguments);
	add_cell(table, need(size < 0 ? NULL : text));
}

void segue_cli_table_value(
	struct segue_cli_table *table, const struct segue_json_value *object, const char *name)
{
	const struct segue_json_value *value = segue_json_get(object, name);

	if (!value || !value->text || value->type == SEGUE_JSON_NULL)
		segue_cli_table_add(table, "-");
	else if (value->type == SEGUE_JSON_BOOL)
		segue_cli_table_add(table, "%s", segue_json_get_bool(object, name) ? "yes" : "no");
	else
		add_cell(table, segue_cli_printable(value->text, value->size));
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

void segue_cli_table_print(struct segue_cli_table *table, int indent)
{
	size_t columns = table->columns;
	int *width = need(calloc(columns + 1, sizeof(*width)));
	bool *right = need(calloc(columns + 1, sizeof(*right)));

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
	segue_cli_table_finish(table);
}

void segue_cli_table_finish(struct segue_cli_table *table)
{
	for (size_t i = 0; i < table->count; i++)
		free(table->cell[i]);
	free(table->cell);
	*table = (struct segue_cli_table){0};
}

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
	unsigned long long s = seconds;

	if (s < 60)
		snprintf(text, 32, "%llu s", s);
	else if (s < 3600)
		snprintf(text, 32, "%llu min %llu s", s / 60, s % 60);
	else if (s < 86400)
		snprintf(text, 32, "%llu h %llu min", s / 3600, s % 3600 / 60);
	else
		snprintf(text, 32, "%llu d %llu h", s / 86400, s % 86400 / 3600);
	return text;
}
