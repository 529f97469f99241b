/* The program `segue`: finds the subcommand and runs it. */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "cli/backup.h"
#include "cli/cli.h"
#include "report/verifier.h"

static const struct segue_cli_command *const commands[] = {&segue_cli_serve, &segue_cli_status,
	&segue_cli_top, &segue_cli_inspect, &segue_cli_get, &segue_cli_checkpoint,
	&segue_cli_stream, &segue_cli_verify, &segue_cli_backup, &segue_cli_restore,
	&segue_cli_repair, &segue_cli_peek, &segue_cli_convert, &segue_cli_doctor};

enum { COMMAND_COUNT = sizeof(commands) / sizeof(commands[0]) };

static void print_usage(FILE *file)
{
	int width = 0;

	fprintf(file, "Usage: segue COMMAND [OPERAND]... [OPTION]...\n"
		      "       segue --version | --help\n\n"
		      "Batches of segments of long sequences, with carried state.\n\n"
		      "Commands:\n");
	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		int wanted = (int)strlen(commands[i]->operands);
		width = wanted > width ? wanted : width;
	}
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		fprintf(file, "  %-10s %-*s %s\n", commands[i]->name, width, commands[i]->operands,
			commands[i]->summary);
	fprintf(file,
		"\n'segue COMMAND --help' says more.\n\n"
		"Exit status: 0 fine, 1 something is wrong (a message says what), 2 the\n"
		"command line was not understood, 3 damaged (verify, backup, restore, repair), or\n"
		"it could not be read while it was served (serve).\n");
}

/* How many letters two words differ by: put in, left out or exchanged. No command is that long. */
static size_t distance(const char *a, const char *b)
{
	size_t row[16], length = strlen(b);

	if (length >= sizeof(row) / sizeof(row[0]))
		return SIZE_MAX;
	for (size_t j = 0; j <= length; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= length; j++) {
			size_t least = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = row[j];
			least = row[j] + 1 < least ? row[j] + 1 : least;
			row[j] = row[j - 1] + 1 < least ? row[j - 1] + 1 : least;
		}
	}
	return row[length];
}

static void fail_unknown(const char *name)
{
	const char *nearest = NULL;
	size_t least = strlen(name) / 2;

	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		size_t apart = distance(name, commands[i]->name);
		if (apart < least) {
			nearest = commands[i]->name;
			least = apart;
		}
	}
	if (nearest)
		fprintf(stderr, "segue: there is no command '%s': did you mean '%s'?\n", name,
			nearest);
	else
		fprintf(stderr, "segue: there is no command '%s'\n", name);
}

static int run_command(const char *name, int argc, char **argv)
{
	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		if (strcmp(name, commands[i]->name) == 0)
			return segue_cli_run(commands[i], argc, argv);
	}
	if (*name == '-')
		fprintf(stderr, "segue: there is no option '%s' before a command\n", name);
	else
		fail_unknown(name);
	fputs("Try 'segue --help'.\n", stderr);
	return SEGUE_CLI_USAGE;
}

/* `segue child PARENT WORK [ARGUMENT]...`, for the program's own use. */
static int run_child(char **argv)
{
	segue_child_fn *work = strcmp(argv[2], "copy") == 0 ? segue_cli_copy : segue_verifier_work;

	return segue_child_answer(argv[1], work, argv + 3);
}

static bool is_one_of(const char *name, const char *a, const char *b, const char *c)
{
	return strcmp(name, a) == 0 || strcmp(name, b) == 0 || strcmp(name, c) == 0;
}

static int run(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

	if (is_one_of(name, "--version", "-V", "version")) {
		printf("segue %s\n", segue_version());
		return SEGUE_CLI_FINE;
	}
	if (is_one_of(name, "--help", "-h", "help")) {
		char option[] = "--help", *of_command[] = {argv[0], option, NULL};
		if (argc > 2 && *argv[2] != '-')
			return run_command(argv[2], 2, of_command);
		print_usage(stdout);
		return SEGUE_CLI_FINE;
	}
	if (strcmp(name, "child") == 0 && argc > 4)
		return run_child(argv + 1);
	if (*name)
		return run_command(name, argc - 1, argv + 1);
	print_usage(stderr);
	fputs("Try 'segue --help'.\n", stderr);
	return SEGUE_CLI_USAGE;
}

int main(int argc, char **argv)
{
	/* Whoever started us may ignore it: then children end, and nobody can say how. */
	signal(SIGCHLD, SIG_DFL);
	int status = run(argc, argv);

	/* A report that did not reach its file must not look like one that did. */
	errno = 0;
	bool lost = ferror(stdout) != 0;
	if (fclose(stdout) != 0 && errno != EBADF)
		lost = true;
	if (lost)
		fputs("segue: standard output could not be written\n", stderr);
	return lost && status == SEGUE_CLI_FINE ? SEGUE_CLI_WRONG : status;
}
