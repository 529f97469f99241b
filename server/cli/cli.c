/* The command line: options, operands, --help. */
#include "cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/spec.h"
#include "core/utf8.h"

enum { MEBIBYTES_MAX = 1 << 20 };

void *segue_cli_need(void *memory)
{
	if (!memory) {
		fputs("segue: out of memory\n", stderr);
		exit(SEGUE_CLI_WRONG);
	}
	return memory;
}

/* ---- What is printed ---- */

bool segue_cli_is_control(const char *at, size_t length)
{
	const unsigned char *byte = (const unsigned char *)at;

	return byte[0] < 0x20 || byte[0] == 0x7f ||
	       (length == 2 && byte[0] == 0xc2 && byte[1] < 0xa0);
}

char *segue_cli_printable(const char *bytes, size_t size)
{
	char *out = segue_cli_need(malloc(4 * size + 1)), *to = out;

	while (size > 0) {
		size_t length = segue_utf8_next(bytes, size), step = length ? length : 1;
		if (length && !segue_cli_is_control(bytes, length)) {
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

int segue_cli_fail(void)
{
	const char *detail = segue_error_detail();
	char *shown = segue_cli_printable(detail, strlen(detail));

	fflush(stdout);
	fprintf(stderr, "segue: %s\n", shown);
	free(shown);
	return SEGUE_CLI_WRONG;
}

/* ---- Options ---- */

#define HELP_WIDTH 80

enum kind { FLAG, TEXT, LIST, NUMBER }; /* bool, const char *, struct segue_cli_list, int64_t */

#define TO(member) offsetof(struct segue_cli_options, member)

static const struct known_option {
	unsigned taken; /* a command that takes one of these takes it */
	const char *name, *argument, *text;
	enum kind kind;
	size_t place; /* in struct segue_cli_options */
	int64_t least, most;
} known_options[] = {
	{SEGUE_CLI_JSON, "json", "", "print one line of JSON", FLAG, TO(json)},
	{SEGUE_CLI_STREAM, "stream", " NAME", "this stream alone", TEXT, TO(stream)},
	{SEGUE_CLI_SOCKET, "socket", " PATH",
		"socket of the server; default: $SEGUE_SOCKET, else DIR/segue.sock", TEXT,
		TO(socket)},
	{SEGUE_CLI_EMBEDDED, "embedded", "", "run in the background until the last client has left",
		FLAG, TO(embedded)},
	{SEGUE_CLI_SERVICE, "root", " DIR",
		"read files beneath DIR alone; may be given again; default: $SEGUE_ROOT", LIST,
		TO(roots)},
	{SEGUE_CLI_SERVICE, "allow-user", " USER",
		"let this user in, too (name or uid); needs --root; $SEGUE_ALLOW_USER", LIST,
		TO(users)},
	{SEGUE_CLI_SERVICE, "allow-group", " GROUP",
		"let the members of this group in; needs --root; $SEGUE_ALLOW_GROUP", LIST,
		TO(groups)},
	{SEGUE_CLI_SERVICE, "assume-local", "",
		"no other machine writes to DIR's file system; $SEGUE_ASSUME_LOCAL=1", FLAG,
		TO(assume_local)},
	{SEGUE_CLI_IF_DUE, "if-due", "",
		"only after a crash of the machine, or a write that failed", FLAG, TO(if_due)},
	{SEGUE_CLI_MAP_SIZE, "map-size", " MIB",
		"the store cannot grow beyond so many MiB (1 to 1048576)", NUMBER, TO(map_mib), 1,
		MEBIBYTES_MAX},
	{SEGUE_CLI_FORCE, "force", "",
		"replace a store that is there, which is kept beside the new one", FLAG, TO(force)},
	{SEGUE_CLI_FORCE_CUT, "force", "", "also cut off sequences that lie behind a damaged one",
		FLAG, TO(force)},
	{SEGUE_CLI_DRY_RUN, "dry-run", "", "only say what would be done (also -n)", FLAG,
		TO(dry_run)},
	{SEGUE_CLI_PORTABLE, "portable", "",
		"TARGET is one file, which does not depend on the version of LMDB", FLAG,
		TO(portable)},
	{SEGUE_CLI_PROGRESS, "progress", "",
		"print lines of JSON with the progress, before the report", FLAG, TO(progress)},
	{SEGUE_CLI_OPENMETRICS, "openmetrics", "", "print OpenMetrics text, for Prometheus", FLAG,
		TO(openmetrics)},
	{SEGUE_CLI_REFRESHES, "once", "", "print one screen, or line of JSON, and end", FLAG,
		TO(once)},
	{SEGUE_CLI_REFRESHES, "count", " N", "print so many, one a second, and end (also -n)",
		NUMBER, TO(count), 1, INT64_MAX},
	{SEGUE_CLI_GROUP, "group", " NAME", "this group alone", TEXT, TO(group)},
	{SEGUE_CLI_LANE, "lane", " N", "this lane alone", NUMBER, TO(lane), 0, SEGUE_LANES_MAX - 1},
	{SEGUE_CLI_ID, "id", " N", "the checkpoints of this id", NUMBER, TO(id), 0, INT64_MAX},
	{SEGUE_CLI_STEP, "step", " N", "the checkpoints of this step", NUMBER, TO(step), 0,
		INT64_MAX},
	{SEGUE_CLI_YES, "yes", "", "do it without asking", FLAG, TO(yes)},
	{SEGUE_CLI_ALL_RECORDS, "all", "", "look at all records, and every checksum", FLAG,
		TO(all)},
	{SEGUE_CLI_ALL, "all", "", "the checkpoints of every id and step", FLAG, TO(all)},
};

enum {
	OPTION_COUNT = sizeof(known_options) / sizeof(known_options[0]),
	OPTION_LETTER = 256,                         /* the first option's; beyond any character */
	LIMIT_LETTER = OPTION_LETTER + OPTION_COUNT, /* the first limit's */
};

/* The text is broken at spaces, and goes on below its beginning. */
static void print_option(const char *name, const char *argument, const char *text)
{
	char left[64];

	snprintf(left, sizeof(left), "--%s%s", name, argument);
	printf("  %-24s", left);
	for (size_t at = 27; *text; text += strspn(text, " ")) {
		size_t word = strcspn(text, " ");

		if (at + word > HELP_WIDTH) {
			printf("\n%26s", "");
			at = 27;
		}
		printf(" %.*s", (int)word, text);
		at += word + 1;
		text += word;
	}
	putchar('\n');
}

static void print_help(const struct segue_cli_command *command)
{
	char text[256];

	printf("Usage: segue %s %s [OPTION]...\n\n%c%s.\n\nOptions:\n", command->name,
		command->operands, toupper(command->summary[0]), command->summary + 1);
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		if (command->takes & known_options[i].taken)
			print_option(known_options[i].name, known_options[i].argument,
				known_options[i].text);
	}
	for (unsigned i = 0; (command->takes & SEGUE_CLI_SERVICE) && i < SEGUE_LIMIT_COUNT; i++) {
		const struct segue_limit_info *info = segue_limit_info(i);
		snprintf(text, sizeof(text), "%s [%s]", info->text, info->normal);
		print_option(info->flag, info->unit, text);
	}
	print_option("help", "", "print this text");
	printf("\n%s", command->help);
}

/* As getopt_long() wants them. */
static void options_of(const struct segue_cli_command *command, struct option *out)
{
	for (int i = 0; i < OPTION_COUNT; i++) {
		const struct known_option *known = &known_options[i];
		int argument = known->kind == FLAG ? no_argument : required_argument;
		if (command->takes & known->taken)
			*out++ = (struct option){known->name, argument, NULL, OPTION_LETTER + i};
	}
	for (unsigned i = 0; (command->takes & SEGUE_CLI_SERVICE) && i < SEGUE_LIMIT_COUNT; i++)
		*out++ = (struct option){
			segue_limit_info(i)->flag, required_argument, NULL, LIMIT_LETTER + (int)i};
	*out++ = (struct option){"help", no_argument, NULL, 'h'};
	*out = (struct option){0};
}

static void add_item(struct segue_cli_list *list, const char *item)
{
	list->item = segue_cli_need(realloc(list->item, (list->count + 1) * sizeof(*list->item)));
	list->item[list->count++] = item;
}

/* False: usage. */
static bool take_number(const struct known_option *known, const char *text, int64_t *out)
{
	char *end;

	errno = 0;
	long long value = strtoll(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || value < known->least ||
		value > known->most) {
		fprintf(stderr,
			"segue: --%s is '%s': give a number%s from %" PRId64 " to %" PRId64 "\n",
			known->name, text, known->place == TO(map_mib) ? " of MiB" : "",
			known->least, known->most);
		return false;
	}
	*out = value;
	return true;
}

/* False: usage. */
static bool take_option(int letter, const char *text, struct segue_cli_options *options)
{
	if (letter < OPTION_LETTER)
		return false;
	if (letter >= LIMIT_LETTER) {
		options->limits[letter - LIMIT_LETTER] = text;
		return true;
	}
	const struct known_option *known = &known_options[letter - OPTION_LETTER];
	void *place = (char *)options + known->place;
	switch (known->kind) {
	case FLAG:
		*(bool *)place = true;
		break;
	case TEXT:
		*(const char **)place = text;
		break;
	case LIST:
		add_item(place, text);
		break;
	case NUMBER:
		return take_number(known, text, place);
	}
	return true;
}

/* Of the option that has this place. */
static int letter_of(size_t place)
{
	int i = 0;

	while (known_options[i].place != place)
		i++;
	return OPTION_LETTER + i;
}

/* ---- The line ---- */

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
	options->operands = argv + optind;
	options->operand_count = count;
	if (count > 0)
		options->dir = argv[optind];
	if (count > 1)
		options->key = argv[optind + 1];
	if (count > 0 && !*options->dir) {
		fprintf(stderr, "segue %s: %.*s is empty\n", command->name,
			(int)strcspn(command->operands, ". "), command->operands);
		return false;
	}
	return true;
}

static void default_socket(struct segue_cli_options *options)
{
	const char *socket = getenv("SEGUE_SOCKET");

	/* A client that starts a server says where it will look for it. */
	if (!options->socket && socket && *socket && !options->embedded)
		options->socket = socket;
}

static int run_with(const struct segue_cli_command *command, int argc, char **argv,
	struct segue_cli_options *options)
{
	struct option accepted[OPTION_COUNT + SEGUE_LIMIT_COUNT + 2];
	char name[32];
	int letter;

	options_of(command, accepted);
	snprintf(name, sizeof(name), "segue %s", command->name);
	argv[0] = name; /* getopt's messages begin with it */
	/* -n is one option's or the other's; no command takes both. */
	bool dry = command->takes & SEGUE_CLI_DRY_RUN;
	const char *letters = dry ? "hn" : command->takes & SEGUE_CLI_REFRESHES ? "hn:" : "h";
	while ((letter = getopt_long(argc, argv, letters, accepted, NULL)) != -1) {
		if (letter == 'h') {
			print_help(command);
			return SEGUE_CLI_FINE;
		}
		if (letter == 'n')
			letter = letter_of(dry ? TO(dry_run) : TO(count));
		if (!take_option(letter, optarg, options))
			return usage_status(command, argc, argv);
	}
	if (!take_operands(command, argc, argv, options))
		return usage_status(command, argc, argv);
	default_socket(options);
	return command->run(options);
}

int segue_cli_run(const struct segue_cli_command *command, int argc, char **argv)
{
	struct segue_cli_options options = {.lane = -1, .id = -1, .step = -1};

	if (command->run_line)
		return command->run_line(argc, argv);
	int status = run_with(command, argc, argv, &options);
	free(options.roots.item);
	free(options.users.item);
	free(options.groups.item);
	return status;
}
