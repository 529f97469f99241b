/* segue checkpoint: the checkpoints that the store of a directory holds. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "cli/ask.h"
#include "cli/print.h"
#include "core/error.h"
#include "os/file.h"
#include "store/checkpoints.h"
#include "store/lanes.h"

enum { NAMED_LANES = 16 }; /* in a message */

/* One of them; `json` is as INSPECT has it. */
struct stored {
	const char *stream, *group; /* group "": the one without a name */
	uint32_t group_number, lane;
	uint64_t id, step;
	bool ended; /* the lane has, there: it is at every later step, too */
	struct json_object *json;
	char *file; /* export: where it was written */
};

struct stored_list {
	struct json_object *report; /* what the entries point into */
	struct stored *entry;
	size_t count;
};

/* ---- Which ---- */

static void finish_list(struct stored_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->entry[i].file);
	free(list->entry);
	json_object_put(list->report);
	*list = (struct stored_list){0};
}

static bool is_export(const struct segue_cli_options *options)
{
	return strcmp(options->action, "export") == 0;
}

/* An export at a step is of all lanes that are there; what is listed or removed lies at it. */
static bool is_meant(const struct segue_cli_options *options, const struct stored *stored)
{
	uint64_t step = (uint64_t)options->step;

	return (!options->group || strcmp(options->group, stored->group) == 0) &&
	       (options->lane < 0 || (uint64_t)options->lane == stored->lane) &&
	       (options->id < 0 || (uint64_t)options->id == stored->id) &&
	       (options->step < 0 || step == stored->step ||
		       (is_export(options) && stored->ended && step > stored->step));
}

static int add_stored(struct stored_list *list, const struct segue_cli_options *options,
	const struct stored *stored)
{
	if (!is_meant(options, stored))
		return 0;
	struct stored *grown = realloc(list->entry, (list->count + 1) * sizeof(*grown));
	if (!grown)
		return segue_fail(SEGUE_ENOMEM, "no memory for a list of checkpoints");
	list->entry = grown;
	list->entry[list->count++] = *stored;
	return 0;
}

static int add_lane(struct stored_list *list, const struct segue_cli_options *options,
	const char *stream, struct json_object *lane)
{
	struct json_object *checkpoints = json_object_object_get(lane, "checkpoints");
	int rc = 0;

	for (size_t i = 0; !rc && i < segue_json_count(checkpoints); i++) {
		struct json_object *checkpoint = segue_json_at(checkpoints, i);
		const struct stored stored = {
			.stream = stream,
			.group = segue_json_get_text(lane, "group_name"),
			.group_number = (uint32_t)segue_json_get_unsigned(lane, "group"),
			.lane = (uint32_t)segue_json_get_unsigned(lane, "lane"),
			.id = segue_json_get_unsigned(checkpoint, "id"),
			.step = segue_json_get_unsigned(checkpoint, "step"),
			.ended = segue_json_get_bool(checkpoint, "ended"),
			.json = checkpoint,
		};
		rc = add_stored(list, options, &stored);
	}
	return rc;
}

/* Those that the options mean, by stream, lane and step. */
static int load_list(const struct segue_cli_options *options, struct stored_list *list)
{
	char *json;

	*list = (struct stored_list){0};
	int rc = segue_cli_report(options, SEGUE_REPORT_INSPECT, &json);
	if (rc)
		return rc;
	rc = segue_json_parse(json, &list->report);
	segue_free(json);
	struct json_object *streams = json_object_object_get(list->report, "streams");
	for (size_t i = 0; i < segue_json_count(streams); i++) {
		struct json_object *stream = segue_json_at(streams, i);
		struct json_object *lanes = json_object_object_get(stream, "lanes");
		for (size_t lane = 0; !rc && lane < segue_json_count(lanes); lane++)
			rc = add_lane(list, options, segue_json_get_text(stream, "name"),
				segue_json_at(lanes, lane));
	}
	if (rc)
		finish_list(list);
	return rc;
}

static int fail_none(const struct segue_cli_options *options)
{
	bool named = options->stream || options->group || options->lane >= 0 || options->id >= 0 ||
		     options->step >= 0;

	return segue_fail(SEGUE_ENOTFOUND,
		named ? "the store of %s has no such checkpoint ('segue checkpoint list' shows "
			"those that it has)"
		      : "the store of %s has no checkpoint: state_dict() makes them",
		options->dir);
}

/* Those of one stream and one group, and at least one. */
static int load_some(const struct segue_cli_options *options, struct stored_list *list)
{
	int rc = load_list(options, list);

	if (rc)
		return rc;
	if (list->count == 0)
		rc = fail_none(options);
	for (size_t i = 1; !rc && i < list->count; i++) {
		if (strcmp(list->entry[i].stream, list->entry[0].stream) != 0)
			rc = segue_fail(SEGUE_EINVAL,
				"there are checkpoints of '%s' and of '%s': give --stream",
				list->entry[0].stream, list->entry[i].stream);
		else if (strcmp(list->entry[i].group, list->entry[0].group) != 0)
			rc = segue_fail(SEGUE_EINVAL,
				"there are checkpoints of the groups '%s' and '%s': give --group",
				list->entry[0].group, list->entry[i].group);
	}
	if (rc)
		finish_list(list);
	return rc;
}

/* ---- Printing ---- */

static int print_json(const struct stored_list *list)
{
	struct segue_json json = {0};
	char *text;

	segue_json_begin(&json, NULL, '{');
	segue_json_begin(&json, "checkpoints", '[');
	for (size_t i = 0; i < list->count; i++) {
		const struct stored *stored = &list->entry[i];
		segue_json_begin(&json, NULL, '{');
		segue_json_string(&json, "stream", stored->stream);
		segue_json_unsigned(&json, "group", stored->group_number);
		if (*stored->group)
			segue_json_string(&json, "group_name", stored->group);
		segue_json_unsigned(&json, "lane", stored->lane);
		segue_json_unsigned(&json, "id", stored->id);
		segue_json_unsigned(&json, "step", stored->step);
		segue_json_bool(&json, "ended", stored->ended);
		segue_json_string(&json, "created", segue_json_get_text(stored->json, "created"));
		segue_json_unsigned(&json, "bytes", segue_json_get_unsigned(stored->json, "bytes"));
		if (stored->file)
			segue_json_string(&json, "file", stored->file);
		segue_json_end(&json, '}');
	}
	segue_json_end(&json, ']');
	segue_json_end(&json, '}');
	if (segue_json_take(&json, &text))
		return segue_cli_fail();
	puts(text);
	free(text);
	return SEGUE_CLI_FINE;
}

static void print_table(const struct stored_list *list)
{
	static const struct segue_cli_column stream = {"STREAM", "stream"};
	struct segue_cli_column columns[] = {stream, {"GROUP", "group"}, {"LANE", "lane"},
		{"ID", "id"}, {"STEP", "step"}, {"ENDED", "ended"}, {"CREATED", "created"},
		{"SIZE", "bytes", true}, {"FILE", "file"}};
	bool files = list->count > 0 && list->entry[0].file, groups = false;
	struct segue_cli_table table;

	for (size_t i = 0; i < list->count; i++)
		groups |= *list->entry[i].group != '\0';
	if (!groups)
		columns[1] = stream;
	segue_cli_table_init(&table, columns + !groups, (files ? 8u : 7u) + groups);
	for (size_t i = 0; i < list->count; i++) {
		const struct stored *stored = &list->entry[i];
		struct json_object *place = segue_cli_need(json_object_new_object());
		json_object_object_add(place, "stream", json_object_new_string(stored->stream));
		if (*stored->group)
			json_object_object_add(
				place, "group", json_object_new_string(stored->group));
		json_object_object_add(place, "lane", json_object_new_uint64(stored->lane));
		if (stored->file)
			json_object_object_add(place, "file", json_object_new_string(stored->file));
		segue_cli_table_row(&table, stored->json, place);
		json_object_put(place);
	}
	if (list->count == 0)
		puts("no checkpoint is stored");
	segue_cli_table_print(&table, 0);
}

static int show(const struct segue_cli_options *options, struct stored_list *list)
{
	int status = SEGUE_CLI_FINE;

	if (options->json)
		status = print_json(list);
	else
		print_table(list);
	finish_list(list);
	return status;
}

/* ---- What is done to them: by the server if one runs, else in the store ---- */

/* As the library takes it. */
static const char *group_of(const struct stored *stored)
{
	return *stored->group ? stored->group : NULL;
}

static int find_place(const struct segue_cli_access *access, const struct stored *stored,
	struct segue_place *place)
{
	*place = (struct segue_place){.group = stored->group_number, .lane = stored->lane};
	return segue_lanes_find_stream(access->store, stored->stream, &place->stream);
}

static int remove_one(const struct segue_cli_access *access, const struct stored *stored)
{
	struct segue_place place;
	struct segue_ops ops = {0};

	if (access->client)
		return segue_client_checkpoint_remove(
			access->client, stored->stream, group_of(stored), stored->lane, stored->id);
	int rc = find_place(access, stored, &place);
	if (!rc)
		rc = segue_checkpoints_remove(&ops, access->store, place, stored->id);
	if (!rc)
		rc = segue_store_apply(access->store, ops.op, ops.count);
	segue_ops_finish(&ops);
	return rc;
}

static int load_one(const struct segue_cli_access *access, const struct stored *stored,
	void **token, size_t *size)
{
	struct segue_place place;

	if (access->client)
		return segue_client_checkpoint(access->client, stored->stream, group_of(stored),
			stored->lane, stored->id, token, size);
	int rc = find_place(access, stored, &place);
	return rc ? rc : segue_checkpoints_load(access->store, place, stored->id, token, size);
}

/* ---- export ---- */

/* How many lanes an export is of: all of the stream, also those that were never used. */
static uint64_t lanes_wanted(
	const struct segue_cli_options *options, const struct stored_list *list)
{
	struct json_object *streams = json_object_object_get(list->report, "streams");

	if (options->lane >= 0)
		return 1;
	for (size_t i = 0; i < segue_json_count(streams); i++) {
		struct json_object *stream = segue_json_at(streams, i);
		if (strcmp(segue_json_get_text(stream, "name"), list->entry[0].stream) == 0)
			return segue_json_get_unsigned(
				json_object_object_get(stream, "spec"), "lanes");
	}
	return 0; /* not to be: the list comes from there */
}

/*
 * The list comes by lane and, within it, step. Who answered says what `wanted` is: the work is
 * bounded by the list.
 */
static int fail_lanes_without(const struct stored_list *list, uint64_t wanted)
{
	char names[256] = "";
	size_t at = 0, size = 0;
	uint64_t stored = 0;
	unsigned named = 0;

	for (size_t i = 0; i < list->count; i++)
		stored += i == 0 || list->entry[i].lane != list->entry[i - 1].lane;
	if (stored >= wanted)
		return 0;
	for (uint64_t lane = 0; lane < wanted && named < NAMED_LANES; lane++) {
		if (at == list->count || list->entry[at].lane != lane)
			size += (size_t)snprintf(names + size, sizeof(names) - size, "%s%u",
				named++ ? ", " : "", (unsigned)lane);
		while (at < list->count && list->entry[at].lane == lane)
			at++;
	}
	return segue_fail(SEGUE_ENOTFOUND,
		"%" PRIu64 " of %" PRIu64
		" lanes of stream '%s' %s no checkpoint (%s%s): give --lane, "
		"--step or --id for others alone",
		wanted - stored, wanted, list->entry[0].stream,
		wanted - stored == 1 ? "has" : "have", names,
		wanted - stored > named ? ", ..." : "");
}

/* The newest step first, and within it by lane. */
static int compare_steps(const void *a, const void *b)
{
	const struct stored *one = a, *other = b;

	if (one->step != other->step)
		return one->step < other->step ? 1 : -1;
	return one->lane < other->lane ? -1 : one->lane > other->lane;
}

/*
 * Leaves the newest step that all lanes have, each by a checkpoint of that step or, of one that has
 * ended before, by that of its end. A lane has one of a step, and one of its end, at most.
 */
static int choose_step(const struct segue_cli_options *options, struct stored_list *list)
{
	const uint64_t wanted = lanes_wanted(options, list);
	uint64_t ended = 0; /* below `to` in steps */
	size_t from = 0, to = 0, kept = 0;

	int rc = options->lane < 0 ? fail_lanes_without(list, wanted) : 0;
	if (rc)
		return rc;
	qsort(list->entry, list->count, sizeof(*list->entry), compare_steps);
	for (size_t i = 0; i < list->count; i++)
		ended += list->entry[i].ended;
	for (; from < list->count; from = to) {
		for (; to < list->count && list->entry[to].step == list->entry[from].step; to++)
			ended -= list->entry[to].ended;
		if (to - from + ended == wanted)
			break;
	}
	if (from == list->count)
		return segue_fail(SEGUE_ENOTFOUND,
			"no step has a checkpoint of every lane: give --lane, --step or --id");
	for (size_t i = from; i < list->count; i++) {
		if (i < to || list->entry[i].ended)
			list->entry[kept++] = list->entry[i];
	}
	list->count = kept;
	return 0;
}

static int write_bytes(int fd, const void *bytes, size_t size)
{
	return segue_file_write(fd, bytes, size) < 0 ? -1 : fsync(fd);
}

/* Whole, or as it was; its name is on disk when the directory is. */
static int write_file(const char *path, const void *bytes, size_t size)
{
	char *temporary;
	int rc = 0;

	if (asprintf(&temporary, "%s.new", path) < 0)
		return segue_fail(SEGUE_ENOMEM, "no memory for a path");
	int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || write_bytes(fd, bytes, size))
		rc = segue_fail_errno(SEGUE_ESYSTEM, "cannot write %s", temporary);
	if (fd >= 0)
		close(fd);
	if (!rc && rename(temporary, path) < 0)
		rc = segue_fail_errno(SEGUE_ESYSTEM, "cannot rename %s to %s", temporary, path);
	if (rc && fd >= 0)
		unlink(temporary);
	free(temporary);
	return rc;
}

static int export_one(
	const struct segue_cli_access *access, struct stored *stored, const char *target)
{
	size_t size;
	void *token;

	if (asprintf(&stored->file, "%s/lane-%u.token", target, stored->lane) < 0) {
		stored->file = NULL;
		return segue_fail(SEGUE_ENOMEM, "no memory for a path");
	}
	int rc = load_one(access, stored, &token, &size);
	if (rc)
		return rc;
	rc = write_file(stored->file, token, size);
	segue_free(token);
	return rc;
}

static int make_target(const char *target)
{
	if (mkdir(target, 0777) == 0)
		return segue_cli_sync(target, true);
	return errno == EEXIST
		       ? 0
		       : segue_fail_errno(SEGUE_ESYSTEM, "cannot make the directory %s", target);
}

static int run_export(const struct segue_cli_options *options, struct stored_list *list)
{
	struct segue_cli_access access = {0};
	int rc = options->id < 0 && options->step < 0 ? choose_step(options, list) : 0;

	if (!rc)
		rc = make_target(options->key);
	if (!rc)
		rc = segue_cli_open(options, SEGUE_STORE_READ, &access);
	for (size_t i = 0; !rc && i < list->count; i++)
		rc = export_one(&access, &list->entry[i], options->key);
	segue_cli_close(&access);
	if (!rc)
		rc = segue_cli_sync(options->key, false);
	return rc;
}

static int run_remove(const struct segue_cli_options *options, struct stored_list *list)
{
	struct segue_cli_access access;
	int rc = segue_cli_open(options, SEGUE_STORE_SERVE, &access);

	for (size_t i = 0; !rc && i < list->count; i++)
		rc = remove_one(&access, &list->entry[i]);
	segue_cli_close(&access);
	return rc;
}

/* ---- The command ---- */

static int fail_usage(const char *text)
{
	fprintf(stderr, "segue checkpoint: %s\n", text);
	return segue_cli_usage(&segue_cli_checkpoint);
}

static int run_checkpoint(const struct segue_cli_options *options)
{
	const char *action = options->action;
	bool list_only = strcmp(action, "list") == 0, export = is_export(options);
	struct stored_list list;

	if (!list_only && !export && strcmp(action, "rm") != 0)
		return fail_usage("the action is list, rm or export");
	if (export != (options->key != NULL))
		return fail_usage(
			export ? "export wants DIR and TARGET" : "list and rm want DIR alone");
	if (!list_only && !export && !options->all && options->id < 0 && options->step < 0)
		return fail_usage("rm wants --id, --step or --all");
	int rc = list_only ? load_list(options, &list) : load_some(options, &list);
	if (rc)
		return segue_cli_fail();
	if (!list_only && (export ? run_export(options, &list) : run_remove(options, &list))) {
		finish_list(&list);
		return segue_cli_fail();
	}
	return show(options, &list);
}

const struct segue_cli_command segue_cli_checkpoint = {
	.name = "checkpoint",
	.operands = "list|rm|export DIR [TARGET]",
	.summary = "list, remove, export stored checkpoints",
	.help = "list    the checkpoints that the store holds: the newest of each lane, as many\n"
		"        as keep_checkpoints of the stream says\n"
		"rm      removes those of --id, --step or --all. Tokens that were saved stay\n"
		"        good. Final states can then be taken back to the oldest checkpoint\n"
		"        that is left, and not beyond\n"
		"export  writes tokens as TARGET/lane-N.token, where TARGET is a directory:\n"
		"        those of --id or --step, else of the newest step that all lanes of\n"
		"        the stream have. To go on from there, in Python:\n"
		"        loader.load_state_dict(\n"
		"            {\"lane/0\": open(\"TARGET/lane-0.token\", \"rb\").read()})\n\n"
		"--stream, --group and --lane narrow each of them; rm and export are of one\n"
		"stream, and of one of its groups (--group '': the one without a name).\n"
		"Works with and without a running server.\n\n"
		"Exit status: 0 fine, 1 no store, no such checkpoint, or it cannot be read or\n"
		"written, 2 wrong usage.\n",
	.takes = SEGUE_CLI_JSON | SEGUE_CLI_STREAM | SEGUE_CLI_GROUP | SEGUE_CLI_SOCKET |
		 SEGUE_CLI_LANE | SEGUE_CLI_ID | SEGUE_CLI_STEP | SEGUE_CLI_ALL,
	.acts = true,
	.operands_min = 1,
	.operands_max = 2,
	.run = run_checkpoint,
};
