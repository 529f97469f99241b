/* segue convert: becomes the Python that reads other kinds of files. */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"

static char python[] = "python3", of_module[] = "-m", package[] = "segue";

/* Whether there is a Python that has the package. */
static bool has_package(void)
{
	char option[] = "-c", look[] = "from importlib.util import find_spec\n"
				       "raise SystemExit(find_spec('segue') is None)";
	char *const line[] = {python, option, look, NULL};
	int status;
	pid_t pid;

	if (posix_spawnp(&pid, python, NULL, NULL, line, environ) != 0)
		return false;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return false;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* The line as it is: argv[0] is the name of the command. */
static int run_line(int argc, char **argv)
{
	char **line;

	if (has_package()) {
		line = segue_cli_need(calloc((size_t)argc + 4, sizeof(*line)));
		line[0] = python;
		line[1] = of_module;
		line[2] = package;
		memcpy(line + 3, argv, (size_t)argc * sizeof(*line));
		execvp(python, line);
		free(line);
	}
	fputs("segue: convert is done by the Python package of segue, which 'python3' does not "
	      "have: "
	      "run 'python -m segue convert' with the Python that has it, or install it (pip)\n",
		stderr);
	return SEGUE_CLI_WRONG;
}

const struct segue_cli_command segue_cli_convert = {
	.name = "convert",
	.operands = "INPUT... -o OUT",
	.summary = "make sequence files of other data files",
	.run_line = run_line,
};
