/* The screen of 'segue top'. */
#include "cli/screen.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/print.h"
#include "core/utf8.h"

enum { CELL = 64, BAR = 8, ROOMY = 120, WORKER_LEAST = 10, FOOT_SHARE = 3 };

/* ---- Figures as texts ---- */

static const char *put_percent(double share, char text[CELL])
{
	if (share < 0)
		return "-";
	snprintf(text, CELL, "%.0f%%", 100 * share);
	return text;
}

static const char *put_rate(double rate, char text[CELL])
{
	if (rate < 0)
		return "-";
	snprintf(text, CELL, rate < 9.995 ? "%.2f" : rate < 99.95 ? "%.1f" : "%.0f", rate);
	return text;
}

/* "45s", "12m", "3h12m", "2d4h". */
static const char *put_duration(double seconds, char text[CELL])
{
	if (seconds < 0 || !isfinite(seconds))
		return "-";
	if (seconds >= 1e9)
		return ">30y";
	unsigned s = (unsigned)seconds, minutes = s / 60, hours = s / 3600;
	if (s < 100)
		snprintf(text, CELL, "%us", s);
	else if (minutes < 100)
		snprintf(text, CELL, "%um", minutes);
	else if (hours < 48)
		snprintf(text, CELL, "%uh%02um", hours, minutes % 60);
	else
		snprintf(text, CELL, "%ud%uh", hours / 24, hours % 24);
	return text;
}

/* A place for each batch, of 8 at most: "|###.|  3/4". */
static const char *put_ring(const struct segue_look_lane *lane, char text[CELL])
{
	uint64_t ahead = lane->published - lane->committed, depth = lane->depth;
	uint64_t places = depth < BAR ? depth : BAR, full;

	if (!lane->ring || !depth)
		return "-";
	ahead = ahead < depth ? ahead : depth;
	full = (ahead * places + depth - 1) / depth;
	snprintf(text, CELL, "|%.*s%.*s| %" PRIu64 "/%" PRIu64, (int)full, "########",
		(int)(places - full), "........", ahead, depth);
	return text;
}

static const char *put_epoch(const struct segue_look_lane *lane, char text[CELL])
{
	if (lane->epoch < 0)
		return "-";
	if (lane->epochs > 0)
		snprintf(text, CELL, "%.0f/%.0f", lane->epoch + 1, lane->epochs);
	else
		snprintf(text, CELL, "%.0f", lane->epoch + 1);
	return text;
}

static const char *put_worker(const struct segue_look_lane *lane, char text[CELL])
{
	if (lane->holder)
		snprintf(text, CELL, "%jd %s", (intmax_t)lane->holder, lane->script);
	else if (lane->ended)
		return "(ended)";
	else if (lane->left)
		snprintf(text, CELL, "gone: %jd %s", (intmax_t)lane->left, lane->left_script);
	else
		return "(nobody)";
	return text;
}

/* ---- Columns ---- */

enum column {
	LANE,
	STREAM,
	GROUP,
	WORKER,
	EPOCH,
	STEP,
	RATE,
	WORKER_WAITS,
	SERVER_WAITS,
	RING,
	COMMIT,
	CHECKPOINT,
	ETA,
	COLUMN_COUNT,
};

static const struct {
	const char *roomy, *narrow; /* headers */
	int rank;                   /* the highest goes first where there is no room; 0: stays */
	bool left;
} columns[COLUMN_COUNT] = {
	[LANE] = {"LANE", "LANE", 0, false},
	[STREAM] = {"STREAM", "STREAM", 0, true},
	[GROUP] = {"GROUP", "GROUP", 0, true},
	[WORKER] = {"WORKER", "WORKER", 0, true},
	[EPOCH] = {"EPOCH", "EPOCH", 6, false},
	[STEP] = {"STEP", "STEP", 0, false},
	[RATE] = {"BATCHES/S", "B/S", 0, false},
	[WORKER_WAITS] = {"WORKER WAITS", "WWAIT", 1, false},
	[SERVER_WAITS] = {"SERVER WAITS", "SWAIT", 2, false},
	[RING] = {"RING", "RING", 3, true},
	[COMMIT] = {"COMMITTED", "COMM", 4, false},
	[CHECKPOINT] = {"CHECKPOINT", "CKPT", 7, false},
	[ETA] = {"ETA", "ETA", 5, false},
};

/* Into `text`, or a constant. */
static const char *cell_of(const struct segue_look *look, const struct segue_look_lane *lane,
	enum column column, char text[CELL])
{
	switch (column) {
	case LANE:
		snprintf(text, CELL, "%" PRIu64, lane->lane);
		return text;
	case STREAM:
		return lane->stream;
	case GROUP:
		return *lane->group ? lane->group : "-";
	case WORKER:
		return put_worker(lane, text);
	case EPOCH:
		return put_epoch(lane, text);
	case STEP:
		snprintf(text, CELL, "%" PRIu64, lane->committed);
		return text;
	case RATE:
		return put_rate(lane->batches_per_s, text);
	case WORKER_WAITS:
		return put_percent(lane->worker_waits, text);
	case SERVER_WAITS:
		return put_percent(lane->server_waits, text);
	case RING:
		return put_ring(lane, text);
	case COMMIT:
		return put_duration(segue_look_age(look, lane->committed_at), text);
	case CHECKPOINT:
		return put_duration(segue_look_age(look, lane->checkpoint_at), text);
	case ETA:
		return lane->ended ? "ended" : put_duration(lane->eta_s, text);
	case COLUMN_COUNT:
		break;
	}
	return "";
}

struct table {
	bool shown[COLUMN_COUNT], roomy;
	int width[COLUMN_COUNT], gap;
};

static int width_of(const char *text)
{
	int width = 0;

	for (; *text; text++)
		width += ((unsigned char)*text & 0xc0) != 0x80;
	return width;
}

static int total_of(const struct table *table)
{
	int total = -table->gap;

	for (int i = 0; i < COLUMN_COUNT; i++)
		total += table->shown[i] ? table->width[i] + table->gap : 0;
	return total;
}

static const char *header_of(const struct table *table, int column)
{
	return table->roomy ? columns[column].roomy : columns[column].narrow;
}

static void choose_columns(const struct segue_look *look, struct table *table)
{
	for (int i = 0; i < COLUMN_COUNT; i++)
		table->shown[i] = true;
	table->shown[STREAM] = table->shown[GROUP] = false;
	for (size_t i = 0; i < look->lane_count; i++) {
		const struct segue_look_lane *lane = &look->lane[i];
		table->shown[GROUP] |= *lane->group != '\0';
		table->shown[STREAM] |= strcmp(lane->stream, look->lane[0].stream) != 0;
	}
	if (look->served)
		return;
	for (int i = WORKER; i < COLUMN_COUNT; i++)
		table->shown[i] = i == STEP || i == COMMIT || i == CHECKPOINT;
}

static void measure(const struct segue_look *look, struct table *table)
{
	for (int i = 0; i < COLUMN_COUNT; i++)
		table->width[i] = width_of(header_of(table, i));
	for (size_t i = 0; i < look->lane_count; i++) {
		for (int j = 0; j < COLUMN_COUNT; j++) {
			char text[CELL];
			int width = width_of(cell_of(look, &look->lane[i], (enum column)j, text));
			table->width[j] = width > table->width[j] ? width : table->width[j];
		}
	}
}

/* What does not fit goes: first the ends of long names, then columns. */
static void fit(const struct segue_look *look, struct table *table, int room)
{
	table->roomy = room >= ROOMY;
	table->gap = table->roomy ? 2 : 1;
	choose_columns(look, table);
	measure(look, table);
	for (;;) {
		static const int shrink[] = {WORKER, GROUP, STREAM};
		int over = total_of(table) - room, last = -1;
		for (size_t i = 0; i < 3 && over > 0; i++) {
			int spare = table->width[shrink[i]] - WORKER_LEAST;
			spare = !table->shown[shrink[i]] || spare < 0 ? 0 : spare;
			spare = spare < over ? spare : over;
			table->width[shrink[i]] -= spare;
			over -= spare;
		}
		for (int i = 0; i < COLUMN_COUNT && over > 0; i++)
			if (table->shown[i] && columns[i].rank &&
				(last < 0 || columns[i].rank > columns[last].rank))
				last = i;
		if (over <= 0 || last < 0)
			return;
		table->shown[last] = false;
		measure(look, table); /* names may have room again */
	}
}

/* ---- Lines ---- */

struct drawing {
	const struct segue_screen *screen;
	char *text;
	size_t size;
	int lines;
};

static void append(struct drawing *drawing, const char *bytes, size_t size)
{
	drawing->text = segue_cli_need(realloc(drawing->text, drawing->size + size + 1));
	memcpy(drawing->text + drawing->size, bytes, size);
	drawing->size += size;
	drawing->text[drawing->size] = '\0';
}

/* As many of its characters as there is room for. */
static size_t clip(const char *text, int room)
{
	size_t size = strlen(text), at = 0;

	for (int shown = 0; at < size && shown < room; shown++) {
		size_t length = segue_utf8_next(text + at, size - at);
		at += length ? length : 1;
	}
	return at;
}

static void put_piece(struct drawing *drawing, const char *sgr, const char *text, size_t size)
{
	const struct segue_screen *screen = drawing->screen;
	bool coloured = screen->colour && *sgr;

	if (screen->rows && drawing->lines >= screen->rows)
		return;
	if (coloured)
		append(drawing, sgr, strlen(sgr));
	append(drawing, text, size);
	if (coloured)
		append(drawing, "\x1b[0m", 4);
	append(drawing, "\n", 1);
	drawing->lines++;
}

/* One line, cut where the screen ends. `sgr`: a code for its looks, or "". */
static void put_line(struct drawing *drawing, const char *sgr, const char *text)
{
	put_piece(drawing, sgr, text, clip(text, drawing->screen->columns));
}

/* Sentences: broken at spaces, where there is one. */
static void put_text(struct drawing *drawing, const char *sgr, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
static void put_text(struct drawing *drawing, const char *sgr, const char *format, ...)
{
	va_list arguments;
	char *text;

	va_start(arguments, format);
	if (vasprintf(&text, format, arguments) < 0)
		text = NULL;
	va_end(arguments);
	segue_cli_need(text);
	for (const char *at = text; *at; at += strspn(at, " ")) {
		size_t size = clip(at, drawing->screen->columns), whole = size;
		while (at[size] && whole > 0 && at[whole] != ' ')
			whole--;
		size = at[size] && whole ? whole : size;
		put_piece(drawing, sgr, at, size);
		at += size;
	}
	free(text);
}

#define BAD   "\x1b[1;31m"
#define HEAD  "\x1b[1m"
#define FAINT "\x1b[2m"
#define PLAIN ""

static void put_cells(struct drawing *drawing, const struct table *table, const char *sgr,
	const char *(*cell)(const void *of, int column, char text[CELL]), const void *of)
{
	char *line = segue_cli_need(calloc(1, 1));
	size_t used = 0;

	for (int i = 0; i < COLUMN_COUNT; i++) {
		char text[CELL];
		if (!table->shown[i])
			continue;
		const char *value = cell(of, i, text);
		size_t size = clip(value, table->width[i]);
		int blank = table->width[i] - width_of(value);
		blank = blank > 0 ? blank : 0;
		int before = columns[i].left ? 0 : blank, after = blank - before;
		size_t most = used + size + (size_t)(blank + table->gap) + 1;
		line = segue_cli_need(realloc(line, most));
		used += (size_t)snprintf(line + used, most - used, "%*s%*s%.*s%*s",
			used ? table->gap : 0, "", before, "", (int)size, value, after, "");
	}
	while (used && line[used - 1] == ' ')
		line[--used] = '\0';
	put_line(drawing, sgr, line);
	free(line);
}

static const char *header_cell(const void *of, int column, char text[CELL])
{
	(void)text;
	return header_of(of, column);
}

struct row {
	const struct segue_look *look;
	const struct segue_look_lane *lane;
};

static const char *row_cell(const void *of, int column, char text[CELL])
{
	const struct row *row = of;

	return cell_of(row->look, row->lane, (enum column)column, text);
}

/* ---- The screen ---- */

/* The end of a path that is wider than `room`; *cut: "..." is to stand before it. */
static const char *end_of_path(const char *path, int room, const char **cut)
{
	*cut = width_of(path) > room ? "..." : "";
	while (**cut && *path && width_of(path) > room - 3)
		path += clip(path, 1);
	return path;
}

static void put_title(struct drawing *drawing, const struct segue_look *look)
{
	char up[32], memory[32], facts[160] = "", *title;
	const char *cut;

	if (look->served)
		snprintf(facts, sizeof(facts), "  pid %jd%s, up %s, memory %s%s",
			(intmax_t)look->pid, look->embedded ? ", embedded" : "",
			segue_cli_duration((uint64_t)look->uptime_s, up),
			segue_cli_bytes((uint64_t)look->resident_bytes, memory),
			look->stopping ? ", STOPPING" : "");
	int left = drawing->screen->columns - width_of("segue top  ") - width_of(facts);
	const char *dir = end_of_path(look->dir, left > 12 ? left : 12, &cut);
	if (asprintf(&title, "segue top  %s%s%s", cut, dir, facts) < 0)
		title = NULL;
	put_line(drawing, HEAD, segue_cli_need(title));
	free(title);
}

static void put_head(struct drawing *drawing, const struct segue_look *look)
{
	put_title(drawing, look);
	if (look->trouble && look->served)
		put_text(drawing, BAD,
			"THE STORE CANNOT BE WRITTEN: %s. What was committed since the last commit "
			"on disk is kept in memory; no batch is published until it can be written",
			look->trouble);
	else if (look->trouble)
		put_text(drawing, BAD, "NO SERVER: %s", look->trouble);
	if (!look->served && look->lane_count)
		put_text(drawing, PLAIN, "In the store, which the next server goes on from:");
}

/* "train: padding 3%; exposed data wait 12 ms a batch, 40% of the time (worst: process 4711)". */
static void put_stream(struct drawing *drawing, const struct segue_look_stream *stream)
{
	char padding[CELL], waits[CELL], wait[CELL] = "";

	if (stream->padding < 0 && stream->exposed_wait < 0)
		return;
	if (stream->exposed_wait_s >= 0)
		snprintf(wait, sizeof(wait), "%.3g ms a batch, ", stream->exposed_wait_s * 1e3);
	if (stream->exposed_wait < 0)
		put_text(drawing, PLAIN, "%s: padding %s", stream->name,
			put_percent(stream->padding, padding));
	else
		put_text(drawing, PLAIN,
			"%s: padding %s; exposed data wait %s%s of the time (worst: process %jd)",
			stream->name, put_percent(stream->padding, padding), wait,
			put_percent(stream->exposed_wait, waits), (intmax_t)stream->worst);
}

/* Notes first: they say what is wrong. */
static void put_foot(struct drawing *drawing, const struct segue_look *look)
{
	for (size_t i = 0; i < look->note_count; i++)
		put_text(drawing, PLAIN, "%s", look->note[i]);
	for (size_t i = 0; i < look->stream_count; i++)
		put_stream(drawing, &look->stream[i]);
}

/* So many lines of it; with no room for all, the last says how many more there are. */
static void copy_foot(struct drawing *drawing, const struct drawing *foot, int room)
{
	int fits = foot->lines <= room ? foot->lines : room - 1;
	const char *line = foot->text;
	char more[CELL];

	for (int i = 0; i < fits; i++) {
		const char *end = strchr(line, '\n');
		put_piece(drawing, PLAIN, line, (size_t)(end - line));
		line = end + 1;
	}
	snprintf(more, sizeof(more), "and %d lines more, for a higher window", foot->lines - fits);
	if (fits < foot->lines && room > 0)
		put_line(drawing, FAINT, more);
}

static void put_lanes(struct drawing *drawing, const struct segue_look *look,
	const struct table *table, struct segue_screen *screen, int room)
{
	int count = (int)look->lane_count, first = screen->first;
	bool all = !screen->rows || count <= room;
	int seen = all ? count : room > 1 ? room - 1 : 0;
	char more[CELL];

	screen->last_first = count - seen;
	screen->seen = seen;
	first = first < screen->last_first ? first : screen->last_first;
	first = first > 0 ? first : 0;
	for (int i = first; i < first + seen; i++) {
		const struct segue_look_lane *lane = &look->lane[i];
		const struct row row = {look, lane};
		bool bad = !lane->holder && lane->left && !lane->ended;
		put_cells(drawing, table, bad ? BAD : PLAIN, row_cell, &row);
	}
	snprintf(more, sizeof(more), "+ %d more above, %d below (arrows, page keys)", first,
		count - first - seen);
	if (!all && room > 0)
		put_line(drawing, FAINT, more);
}

char *segue_screen_draw(const struct segue_look *look, struct segue_screen *screen)
{
	const struct segue_screen endless = {.columns = screen->columns};
	struct drawing drawing = {.screen = screen}, foot = {.screen = &endless};
	struct table table;

	screen->last_first = screen->seen = 0;
	put_head(&drawing, look);
	put_foot(&foot, look);
	/* The foot has a share, and what the lanes leave; so what they need if it needs less. */
	int room = screen->rows - drawing.lines - 1, foot_room = screen->rows / FOOT_SHARE;
	int spare = room - (int)look->lane_count;
	foot_room = spare > foot_room ? spare : foot_room;
	foot_room = !screen->rows || foot.lines < foot_room ? foot.lines : foot_room;
	if (look->lane_count) {
		fit(look, &table, screen->columns);
		put_cells(&drawing, &table, HEAD, header_cell, &table);
		put_lanes(&drawing, look, &table, screen, room - foot_room);
	} else if (look->served) {
		put_text(&drawing, PLAIN, "no stream is open");
	}
	copy_foot(&drawing, &foot, foot_room);
	free(foot.text);
	return segue_cli_need(drawing.text);
}
