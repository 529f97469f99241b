/* segue peek: a sequence file. Head, foot and index say most; the rest is read if all is asked. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/peek.h"
#include "core/error.h"
#include "source/seqfile/scan.h"

static bool same_shape(
	const struct segue_peek_feature *feature, const struct segue_seqfile_field *field)
{
	return feature->form == field->form && feature->dtype == field->dtype &&
	       feature->rank == field->rank &&
	       memcmp(feature->dims, field->dims, field->rank * sizeof(field->dims[0])) == 0;
}

static void take_fields(struct segue_peek_found *found, const struct segue_seqfile_head *head)
{
	found->heads++;
	for (uint32_t i = 0; i < head->count; i++) {
		const struct segue_seqfile_field *field = &head->fields[i];
		struct segue_peek_feature *feature =
			segue_peek_feature(found, field->place, field->name, strlen(field->name));

		if (!feature)
			continue;
		if (feature->records > 0 && !same_shape(feature, field)) {
			segue_fail(SEGUE_EDATA,
				"'%s' has another dtype or shape than in the files before it",
				field->name);
			segue_peek_trouble(found);
			continue;
		}
		feature->form = field->form;
		feature->dtype = field->dtype;
		feature->rank = field->rank;
		memcpy(feature->dims, field->dims, sizeof(feature->dims));
		feature->records++;
	}
}

/* By the index: lengths of all; keys of the first. */
static int take_index(struct segue_peek_found *found, struct segue_seqfile_scan *scan)
{
	struct segue_seqfile_indexed *index;
	struct segue_seqfile_entry entry;
	struct segue_seqfile_foot foot;
	int rc = segue_seqfile_scan_index(scan, &foot, &index);

	if (rc)
		return rc;
	for (uint64_t i = 0; i < foot.entries; i++)
		segue_peek_length(found, index[i].steps);
	segue_peek_file(found)->all = true;
	free(index);
	scan->size = foot.index;
	for (uint64_t i = 0; !rc && i < foot.entries && i < SEGUE_PEEK_KEYS; i++) {
		rc = segue_seqfile_scan_find(scan, &entry);
		if (!rc)
			segue_peek_key(found, entry.key, entry.key_size);
	}
	return rc == SEGUE_ENOTFOUND ? 0 : rc;
}

/* Without an index: what lies there, up to the first that is not sound. */
static int take_entries(struct segue_peek_found *found, struct segue_seqfile_scan *scan)
{
	struct segue_peek_file *file = segue_peek_file(found);
	struct segue_seqfile_entry entry;
	int rc = 0;

	while (scan->at < scan->size && (found->every || file->records < SEGUE_PEEK_RECORDS)) {
		rc = segue_seqfile_scan_next(scan, &entry);
		if (rc)
			break;
		segue_peek_length(found, entry.steps);
		segue_peek_key(found, entry.key, entry.key_size);
		segue_cli_show_progress(found->progress, file->path, scan->at, scan->size);
	}
	file->all = scan->at >= scan->size || rc;
	return rc == SEGUE_EDATA ? 0 : rc;
}

/* All blocks of a file that has an index. */
static int check_entries(struct segue_peek_found *found, struct segue_seqfile_scan *scan)
{
	struct segue_peek_file *file = segue_peek_file(found);
	struct segue_seqfile_entry entry;

	scan->at = scan->head.size;
	while (scan->at < scan->size) {
		uint64_t at = scan->at;
		int rc = segue_seqfile_scan_next(scan, &entry);

		if (rc && rc != SEGUE_EDATA)
			return rc;
		if (rc) {
			segue_fail_within(rc, "the sequence at byte %" PRIu64, at);
			segue_peek_trouble(found);
			file->damaged++;
			/* Itself, where its header is sound; then the next. */
			rc = segue_seqfile_scan_find(scan, &entry);
			if (rc)
				return rc == SEGUE_ENOTFOUND ? 0 : rc;
			if (scan->at - entry.size != at)
				scan->at -= entry.size;
		}
		segue_cli_show_progress(found->progress, file->path, scan->at, scan->size);
	}
	return 0;
}

static int look(struct segue_peek_found *found, struct segue_seqfile_scan *scan)
{
	int rc;

	take_fields(found, &scan->head);
	rc = take_index(found, scan);
	if (!rc)
		return found->every ? check_entries(found, scan) : 0;
	if (rc == SEGUE_EINVAL)
		segue_fail(rc, "is not finished: if nobody writes it, 'segue repair' closes it");
	if (rc != SEGUE_EINVAL && rc != SEGUE_EDATA)
		return rc;
	segue_peek_trouble(found);
	return take_entries(found, scan);
}

int segue_peek_seqfile(struct segue_peek_found *found, int fd)
{
	struct segue_seqfile_scan scan;
	int rc = segue_seqfile_scan_begin(&scan, fd, segue_peek_file(found)->bytes);

	if (!rc)
		rc = look(found, &scan);
	if (rc && rc != SEGUE_ENOMEM) {
		segue_peek_trouble(found);
		rc = 0;
	}
	segue_seqfile_scan_finish(&scan);
	return rc;
}
