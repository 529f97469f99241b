/* segue stream: the streams of a directory as a whole; today they can be dropped. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "cli/ask.h"
#include "cli/print.h"
#include "core/error.h"
#include "engine/live_dir.h"
#include "os/process.h"
#include "store/copies.h"
#include "store/drop.h"

/* ---- What it is about ---- */

/* The report of that stream alone, to tell what would go. */
static int load_stream(const struct segue_cli_options *options, struct json_object **report)
{
	struct segue_cli_options one = *options;
	char *json;

	one.stream = options->key;
	one.key = NULL;
	int rc = segue_cli_report(&one, SEGUE_REPORT_INSPECT, &json);
	if (rc)
		return rc;
	rc = segue_json_parse(json, report);
	segue_free(json);
	return rc;
}

/* What goes with it, or with the group of it that is named. */
struct extent {
	uint64_t lanes, step; /* that were begun; the furthest of them */
	size_t checkpoints;
};

static struct extent measure(const struct segue_cli_options *options, struct json_object *report)
{
	struct json_object *stream = segue_json_at(json_object_object_get(report, "streams"), 0);
	struct json_object *lanes = json_object_object_get(stream, "lanes");
	struct extent extent = {.lanes = 0};

	for (size_t i = 0; i < segue_json_count(lanes); i++) {
		struct json_object *lane = segue_json_at(lanes, i);
		uint64_t step = segue_json_get_unsigned(lane, "step");
		if (options->group &&
			strcmp(segue_json_get_text(lane, "group_name"), options->group) != 0)
			continue;
		extent.lanes++;
		extent.step = step > extent.step ? step : extent.step;
		extent.checkpoints += segue_json_count(json_object_object_get(lane, "checkpoints"));
	}
	return extent;
}

/* Before anybody is asked. What it says is what whoever drops it would say. */
static int check_group(const struct segue_cli_options *options, struct json_object *report)
{
	struct json_object *stream = segue_json_at(json_object_object_get(report, "streams"), 0);
	struct json_object *groups = json_object_object_get(stream, "groups");
	size_t i = 0;

	if (!options->group)
		return 0;
	if (!*options->group)
		return segue_drop_fail_unnamed();
	while (i < segue_json_count(groups) &&
		strcmp(segue_json_get_text(segue_json_at(groups, i), "group_name"),
			options->group) != 0)
		i++;
	return i < segue_json_count(groups)
		       ? 0
		       : segue_fail(SEGUE_ENOTFOUND, "stream '%s' has no group '%s'", options->key,
				 options->group);
}

/* ---- Asking ---- */

/* True: the person at the terminal says so. */
static bool confirm(const struct segue_cli_options *options, const struct extent *extent)
{
	char answer[16], what[SEGUE_DROP_TEXT];
	char *name;

	segue_drop_what(options->key, options->group, what);
	name = segue_cli_need(segue_cli_printable(what, strlen(what)));
	fprintf(stderr,
		"Drop %s of %s? %llu lane%s of it in use, up to step %llu, and %zu stored "
		"checkpoint%s go for good; state dicts saved elsewhere stay good. [y/N] ",
		name, options->dir, (unsigned long long)extent->lanes,
		extent->lanes == 1 ? "" : "s", (unsigned long long)extent->step,
		extent->checkpoints, extent->checkpoints == 1 ? "" : "s");
	free(name);
	fflush(stderr);
	return fgets(answer, sizeof(answer), stdin) &&
	       (strcmp(answer, "y\n") == 0 || strcmp(answer, "yes\n") == 0);
}

/* ---- Dropping: by the server if one runs, else in the store ---- */

struct place {
	struct segue_store *store;
	const char *dir;
};

static int apply(void *arg, const struct segue_ops *ops)
{
	return segue_store_apply(((struct place *)arg)->store, ops->op, ops->count);
}

static void forget_log(void *arg, uint32_t id)
{
	segue_live_remove(((struct place *)arg)->dir, id);
}

/* In the store. */
static int drop_here(const struct segue_cli_options *options, struct segue_store *store)
{
	struct place place = {store, options->dir};
	const struct segue_dropping how = {.apply = apply, .forget = forget_log, .arg = &place};
	struct segue_copies copies = {0};
	struct segue_ops ops = {0};
	struct segue_holder self;
	struct segue_drop drop;
	int rc;

	segue_process_identify(getpid(), &self);
	if (!options->group)
		segue_copies_find(&copies, store, options->dir, options->key);
	if (options->group)
		rc = segue_drop_begin_group(
			&ops, store, options->key, options->group, &self, &drop);
	else
		rc = segue_drop_begin(&ops, store, options->key, &self, &drop);
	if (!rc)
		rc = segue_store_apply(store, ops.op, ops.count);
	if (!rc)
		segue_copies_remove(&copies, options->dir, &(struct segue_copies){0});
	segue_copies_finish(&copies);
	segue_ops_finish(&ops);
	/* Also what an earlier one was killed at: nobody else may come by. */
	return rc ? rc : segue_drop_resume(store, &how);
}

static int drop(const struct segue_cli_options *options)
{
	struct segue_cli_access access;

	int rc = segue_cli_open(options, SEGUE_STORE_SERVE, &access);
	if (!rc && !access.client)
		rc = drop_here(options, access.store);
	else if (!rc && options->group)
		rc = segue_client_group_drop(access.client, options->key, options->group);
	else if (!rc)
		rc = segue_client_stream_drop(access.client, options->key);
	segue_cli_close(&access);
	return rc;
}

static int print_json(const struct segue_cli_options *options, const struct extent *extent)
{
	struct segue_json json = {0};
	char *text;

	segue_json_begin(&json, NULL, '{');
	segue_json_string(&json, "dropped", options->key);
	if (options->group)
		segue_json_string(&json, "group_name", options->group);
	segue_json_unsigned(&json, "lanes", extent->lanes);
	segue_json_unsigned(&json, "step", extent->step);
	segue_json_unsigned(&json, "checkpoints", extent->checkpoints);
	segue_json_end(&json, '}');
	if (segue_json_take(&json, &text))
		return segue_cli_fail();
	puts(text);
	free(text);
	return SEGUE_CLI_FINE;
}

/* ---- The command ---- */

static int run_stream(const struct segue_cli_options *options)
{
	struct json_object *report;
	char what[SEGUE_DROP_TEXT];

	if (strcmp(options->action, "rm") != 0) {
		fprintf(stderr, "segue stream: the action is rm\n");
		return segue_cli_usage(&segue_cli_stream);
	}
	if (load_stream(options, &report))
		return segue_cli_fail();
	const struct extent extent = measure(options, report);
	int rc = check_group(options, report);
	json_object_put(report);
	if (rc)
		return segue_cli_fail();
	if (!options->yes && !(isatty(STDIN_FILENO) && isatty(STDERR_FILENO))) {
		segue_fail(SEGUE_EINVAL,
			"there is no terminal to ask whether %s may go: give --yes",
			segue_drop_what(options->key, options->group, what));
		return segue_cli_fail();
	}
	if (!options->yes && !confirm(options, &extent)) {
		segue_fail(SEGUE_EINTERRUPTED, "nothing was dropped");
		return segue_cli_fail();
	}
	if (drop(options))
		return segue_cli_fail();
	return options->json ? print_json(options, &extent) : SEGUE_CLI_FINE;
}

const struct segue_cli_command segue_cli_stream = {
	.name = "stream",
	.operands = "rm DIR NAME",
	.summary = "drop a stream, or a group of it",
	.help = "rm      drops the stream NAME: all that the store holds of it goes, for good.\n"
		"        Positions, states, final states, checkpoints, and the index of its data\n"
		"        set if no other stream has it, and likewise the files in DIR/examples\n"
		"        and DIR/arrays that Python made for it; not the data. State dicts that\n"
		"        were saved elsewhere stay good, for a stream of the same spec and data.\n"
		"        One that is made anew under the name begins at step 0. With --group the\n"
		"        group of that name alone goes: its positions, states and checkpoints;\n"
		"        the one without a name goes with its stream.\n\n"
		"It asks before; --yes is for scripts, which are not asked. Nothing is\n"
		"dropped while a process holds a lane of it, or may come back to one after its\n"
		"server was lost. Works with and without a running server. Killed half-way, it\n"
		"has done nothing, or the next server goes on with it.\n\n"
		"Exit status: 0 dropped, 1 no store, no such stream or group, in use, not\n"
		"confirmed, or it cannot be written, 2 wrong usage.\n",
	.takes = SEGUE_CLI_JSON | SEGUE_CLI_GROUP | SEGUE_CLI_SOCKET | SEGUE_CLI_YES,
	.acts = true,
	.operands_min = 2,
	.operands_max = 2,
	.run = run_stream,
};
