/* segue doctor: what is wrong with this machine, or with a store directory. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <json-c/json.h>
#include <protobuf-c/protobuf-c.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include <zlib.h>

#include "cli/ask.h"
#include "cli/print.h"
#include "core/crc32c.h"
#include "core/error.h"
#include "core/shm.h"
#include "core/wait.h"
#include "os/tree.h"
#include "source/cache.h"
#include "store/file_system.h"
#include "store/store.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

#define TRIAL_PREFIX ".doctor-"

/* A lane in use takes four descriptors, a client two, and each data file that is read one. */
enum { FDS_COMFORTABLE = 1024, FDS_LEAST = 128, COMMITS_TIMED = 20 };

enum level { OK, WARN, BAD };

struct doctor {
	struct segue_json json;
	const struct segue_cli_options *options;
	enum level worst;
	uint64_t lane_bytes; /* shared memory that the streams of the store need; 0: not known */
	bool served;         /* a server answers */
};

/* ---- Findings ---- */

static const char *const level_names[] = {"ok", "warn", "bad"};

/* One finding. `advice`: what to do, unless it is OK; "" if there is nothing to do. */
static void find(struct doctor *doctor, enum level level, const char *subject, const char *advice,
	const char *format, ...) __attribute__((format(printf, 5, 6)));

static void find(struct doctor *doctor, enum level level, const char *subject, const char *advice,
	const char *format, ...)
{
	char text[SEGUE_DETAIL_MAX];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	doctor->worst = level > doctor->worst ? level : doctor->worst;
	segue_json_begin(&doctor->json, NULL, '{');
	segue_json_string(&doctor->json, "level", level_names[level]);
	segue_json_string(&doctor->json, "subject", subject);
	segue_json_string(&doctor->json, "finding", text);
	segue_json_string(&doctor->json, "advice", level == OK ? "" : advice);
	segue_json_end(&doctor->json, '}');
}

/* More is better. */
static enum level judge(uint64_t have, uint64_t bad_below, uint64_t warn_below)
{
	return have < bad_below ? BAD : have < warn_below ? WARN : OK;
}

static void print_report(const struct segue_cli_options *options, struct json_object *report)
{
	static const struct segue_cli_column columns[] = {
		{"LEVEL", "level"}, {"SUBJECT", "subject"}, {"FINDING", "finding"}};
	struct json_object *findings = json_object_object_get(report, "findings");
	struct segue_cli_table table;

	(void)options;
	segue_cli_table_init(&table, columns, 3);
	for (size_t i = 0; i < segue_json_count(findings); i++) {
		struct json_object *finding = segue_json_at(findings, i);
		const char *text = segue_json_get_text(finding, "finding");
		const char *advice = segue_json_get_text(finding, "advice");
		char both[2 * SEGUE_DETAIL_MAX];
		snprintf(both, sizeof(both), "%s%s%s", text, *advice ? ": " : "", advice);
		json_object_object_add(finding, "finding", json_object_new_string(both));
		segue_cli_table_row(&table, finding, NULL);
	}
	segue_cli_table_print(&table, 0);
}

/* ---- The machine ---- */

static void look_at_versions(struct doctor *doctor)
{
	find(doctor, OK, "program", "",
		"segue %s; protobuf-c %s, zlib %s, xxHash %d.%d.%d, json-c %s", segue_version(),
		protobuf_c_version(), zlibVersion(), XXH_VERSION_NUMBER / 10000,
		XXH_VERSION_NUMBER / 100 % 100, XXH_VERSION_NUMBER % 100, json_c_version());
}

static void look_at_kernel(struct doctor *doctor)
{
	struct utsname name;

	uname(&name);
	if (segue_shm_sealable())
		find(doctor, OK, "kernel", "", "%s %s on %s, shared memory can be sealed",
			name.sysname, name.release, name.machine);
	else
		find(doctor, WARN, "kernel",
			"use Linux 5.3 or later, or trust all processes of this user",
			"%s %s cannot seal shared memory, so that a faulty worker could change "
			"what others read",
			name.sysname, name.release);
}

static void look_at_processor(struct doctor *doctor)
{
	const char *crc = segue_crc32c_name();
	cpu_set_t allowed;
	int cores = sched_getaffinity(0, sizeof(allowed), &allowed) == 0
			    ? CPU_COUNT(&allowed)
			    : (int)sysconf(_SC_NPROCESSORS_ONLN);

	find(doctor, cores > 1 ? OK : WARN, "cores",
		"give it two or more: worker and server must share it", "%d", cores);
	if (strcmp(crc, "table") != 0)
		find(doctor, OK, "CRC32C", "", "%s", crc);
	else
		find(doctor, WARN, "CRC32C", "use a processor with SSE 4.2",
			"in software: reading records is several times slower");
}

/* The first number of a line that begins with `head`, in a small file; 0 if there is none. */
static uint64_t number_in(const char *path, const char *head)
{
	char line[128];
	FILE *file = fopen(path, "re");
	uint64_t value = 0;

	while (file && fgets(line, sizeof(line), file)) {
		if (strncmp(line, head, strlen(head)) == 0) {
			value = strtoull(line + strlen(head), NULL, 10);
			break;
		}
	}
	if (file)
		fclose(file);
	return value;
}

/* The kernel's two interfaces for a limit of memory. */
static const struct cgroup {
	const char *mark; /* in /proc/self/cgroup, before the group's path */
	const char *root, *limit, *used;
} cgroups[] = {
	{":memory:", "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"},
	{"0::", "/sys/fs/cgroup", "memory.max", "memory.current"},
};

/* The memory cgroup of this process as a path; NULL if it cannot be known. */
static const struct cgroup *find_cgroup(char *path, size_t size)
{
	const struct cgroup *found = NULL;
	char line[PATH_MAX];
	FILE *file = fopen("/proc/self/cgroup", "re");

	while (file && found != &cgroups[0] && fgets(line, sizeof(line), file)) {
		const struct cgroup *cgroup =
			strstr(line, cgroups[0].mark) ? &cgroups[0] : &cgroups[1];
		const char *mark = strstr(line, cgroup->mark);
		line[strcspn(line, "\n")] = '\0';
		if (!mark || (cgroup == &cgroups[1] && mark != line))
			continue;
		snprintf(path, size, "%s%s", cgroup->root, mark + strlen(cgroup->mark));
		found = cgroup;
	}
	if (file)
		fclose(file);
	return found;
}

/* What the tightest cgroup from this process's up to the root leaves; UINT64_MAX: no limit. */
static uint64_t cgroup_limit(uint64_t *used)
{
	char group[PATH_MAX + 64], path[PATH_MAX + 128];
	const struct cgroup *cgroup = find_cgroup(group, sizeof(group));
	uint64_t least = UINT64_MAX;

	while (cgroup && strlen(group) >= strlen("/sys/fs/cgroup")) {
		snprintf(path, sizeof(path), "%s/%s", group, cgroup->limit);
		uint64_t limit = number_in(path, "");
		if (limit && limit < least) {
			least = limit;
			snprintf(path, sizeof(path), "%s/%s", group, cgroup->used);
			*used = number_in(path, "");
		}
		*strrchr(group, '/') = '\0';
	}
	/* Version 1 has no word for "none". */
	return least < UINT64_C(1) << 60 ? least : UINT64_MAX;
}

/* Is `have` enough for the rings of the streams? Rings of a running server are there already. */
static enum level judge_memory(const struct doctor *doctor, uint64_t have)
{
	uint64_t need = doctor->served ? 0 : doctor->lane_bytes;

	if (have < need || have < 16 * MIB)
		return BAD;
	return have < 256 * MIB || have / 2 < need ? WARN : OK;
}

static void look_at_memory(struct doctor *doctor)
{
	char have[32], limit[32], in_use[32], need[32];
	uint64_t available = number_in("/proc/meminfo", "MemAvailable:") * 1024;
	uint64_t used = 0, most = cgroup_limit(&used);

	if (doctor->lane_bytes)
		find(doctor, OK, "shared memory", "",
			"about %s for all lanes of the store's streams",
			segue_cli_bytes(doctor->lane_bytes, need));
	find(doctor, judge_memory(doctor, available), "memory",
		"make room, or give the streams a smaller depth or batch_size", "%s available",
		segue_cli_bytes(available, have));
	if (most == UINT64_MAX)
		find(doctor, OK, "memory cgroup", "", "no limit");
	else /* what is in use is mostly page cache, which gives way: the limit alone is judged */
		find(doctor, judge_memory(doctor, most), "memory cgroup",
			"raise its limit: at the limit the kernel kills processes",
			"limit %s, %s in use (shared memory counts)", segue_cli_bytes(most, limit),
			segue_cli_bytes(used, in_use));
}

/* Only where memory cannot be sealed do the rings lie in /dev/shm. */
static void look_at_dev_shm(struct doctor *doctor)
{
	struct statvfs info;
	char size[32];

	if (segue_shm_sealable())
		return;
	if (statvfs("/dev/shm", &info) < 0) {
		find(doctor, BAD, "/dev/shm", "mount a tmpfs there", "%s", strerror(errno));
		return;
	}
	uint64_t left = (uint64_t)info.f_bavail * info.f_frsize;
	find(doctor, judge_memory(doctor, left), "/dev/shm",
		"make it larger (docker run --shm-size, or remount with size=)", "%s left",
		segue_cli_bytes(left, size));
}

static uint64_t limit_of(__rlimit_resource_t resource)
{
	struct rlimit limit;

	return getrlimit(resource, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY ? limit.rlim_cur
										   : UINT64_MAX;
}

static void look_at_limits(struct doctor *doctor)
{
	uint64_t files = limit_of(RLIMIT_NOFILE), space = limit_of(RLIMIT_AS),
		 size = limit_of(RLIMIT_FSIZE);
	char text[32];

	if (files == UINT64_MAX)
		find(doctor, OK, "open files", "", "no limit");
	else
		find(doctor, judge(files, FDS_LEAST, FDS_COMFORTABLE), "open files",
			"raise the limit (ulimit -n): each lane in use and each data file takes "
			"some",
			"limit %" PRIu64, files);
	if (space == UINT64_MAX)
		find(doctor, OK, "address space", "", "no limit");
	else
		find(doctor, judge(space, GIB, UINT64_MAX), "address space",
			"lift it (ulimit -v unlimited): the store maps its file whole",
			"limit %s, which also limits the size of the store",
			segue_cli_bytes(space, text));
	if (size != UINT64_MAX)
		find(doctor, judge(size, GIB, UINT64_MAX), "file size",
			"lift it (ulimit -f unlimited): the store is one file", "limit %s",
			segue_cli_bytes(size, text));
}

/* ---- The directory ---- */

static void look_at_file_system(struct doctor *doctor, const char *dir)
{
	struct segue_file_system system;
	int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int rc = fd < 0 ? segue_fail_errno(SEGUE_ESYSTEM, "%s", dir)
			: segue_file_system_get(fd, &system);

	if (fd >= 0)
		close(fd);
	if (rc)
		find(doctor, BAD, "file system", "", "%s", segue_error_detail());
	else if (!segue_file_system_is_local(&system))
		find(doctor, BAD, "file system", SEGUE_FILE_SYSTEM_ADVICE,
			"%s may be shared with other machines: it is %s", dir, system.name);
	else if (system.medium == SEGUE_MEDIUM_DISK)
		find(doctor, OK, "file system", "", "%s (type 0x%x)", system.name, system.type);
	else if (system.medium == SEGUE_MEDIUM_MEMORY)
		find(doctor, WARN, "file system", "use a disk if the states must outlive a restart",
			"%s is in memory (%s): all is lost when the machine stops", dir,
			system.name);
	else
		find(doctor, WARN, "file system",
			"be sure that no other machine opens a store there",
			"%s is %s, and taken for local: $" SEGUE_ASSUME_LOCAL " says so", dir,
			system.name);
}

static void look_at_space(struct doctor *doctor, const char *dir)
{
	struct statvfs info;
	char left[32];

	if (statvfs(dir, &info) < 0)
		return;
	uint64_t bytes = (uint64_t)info.f_bavail * info.f_frsize;
	find(doctor, judge(bytes, 64 * MIB, GIB), "free space",
		"make room: states, index and inflated files go here", "%s",
		segue_cli_bytes(bytes, left));
	if (info.f_files && info.f_favail < 64)
		find(doctor, BAD, "free inodes", "remove files", "%" PRIu64 " left",
			(uint64_t)info.f_favail);
}

static void look_at_copies(struct doctor *doctor, const char *dir)
{
	char cache[PATH_MAX], size[32];
	uint64_t copies, bytes;

	snprintf(cache, sizeof(cache), "%s/cache", dir);
	segue_cache_measure(cache, &copies, &bytes);
	if (copies)
		find(doctor, OK, "inflated files", "",
			"%" PRIu64 " take %s in %s; what lies there may be removed while no server "
			"runs",
			copies, segue_cli_bytes(bytes, size), cache);
}

/* Whether there is more to look at. */
static bool look_at_rights(struct doctor *doctor, const char *dir)
{
	struct stat info;

	if (stat(dir, &info) < 0) {
		find(doctor, BAD, "directory", "", "%s: %s", dir, strerror(errno));
		return false;
	}
	if (!S_ISDIR(info.st_mode)) {
		find(doctor, BAD, "directory", "name another place", "%s is no directory", dir);
		return false;
	}
	unsigned mode = info.st_mode & 07777;
	if (access(dir, R_OK | W_OK | X_OK) < 0) {
		find(doctor, BAD, "rights", "run as its owner, or give it another mode",
			"uid %u may not read and write %s (owner %u, mode %04o): %s", geteuid(),
			dir, info.st_uid, mode, strerror(errno));
		return false;
	}
	if (mode & 0022)
		find(doctor, WARN, "rights", "chmod go-w",
			"others may write in %s (owner %u, mode %04o)", dir, info.st_uid, mode);
	else
		find(doctor, OK, "rights", "", "owner %u, mode %04o", info.st_uid, mode);
	return true;
}

/* What was being made by processes that were killed. */
static void look_at_leftovers(struct doctor *doctor, const char *dir)
{
	DIR *stream = opendir(dir);
	unsigned stores = 0, trials = 0;

	if (!stream)
		return;
	for (struct dirent *entry; (entry = readdir(stream));) {
		const char *name = entry->d_name, *end = strrchr(name, '.');
		stores += strncmp(name, ".store-", 7) == 0 && strcmp(end, ".new") == 0;
		trials += strncmp(name, TRIAL_PREFIX, strlen(TRIAL_PREFIX)) == 0;
	}
	closedir(stream);
	if (stores)
		find(doctor, WARN, "leftovers",
			"nothing to do: the next start of a server removes them",
			"%u unfinished store%s (.store-*.new) of a start that was killed", stores,
			stores == 1 ? "" : "s");
	if (trials)
		find(doctor, WARN, "leftovers", "remove them",
			"%u trial store%s (" TRIAL_PREFIX "*) of a 'segue doctor' that was killed",
			trials, trials == 1 ? "" : "s");
}

/* ---- The server ---- */

static void look_at_answer(struct doctor *doctor, struct json_object *report)
{
	struct json_object *server = json_object_object_get(report, "server");
	struct json_object *store = json_object_object_get(report, "store");
	const char *version = segue_json_get_text(server, "version");
	const char *storage = segue_json_get_text(server, "storage");

	find(doctor, OK, "server", "", "pid %s answers, segue %s, %s",
		segue_json_get_text(server, "pid"), version,
		segue_json_get_bool(server, "embedded") ? "embedded" : "on its own");
	if (strcmp(version, segue_version()) != 0)
		find(doctor, WARN, "server version", "use the same version everywhere",
			"the server is segue %s, this program %s", version, segue_version());
	if (strcmp(storage, "ok") != 0)
		find(doctor, BAD, "storage",
			"look at its log, make room or mend the disk, then start it again",
			"the server cannot write: %s", storage);
	find(doctor, OK, "store", "", "%s, %s transactions since the start",
		segue_json_get_text(store, "lmdb"), segue_json_get_text(store, "transactions"));
}

/* Nobody answers. A socket that is there is a stale one, unless somebody holds the directory. */
static void look_at_silence(struct doctor *doctor, const char *socket)
{
	const char *dir = doctor->options->dir;
	char detail[SEGUE_DETAIL_MAX];
	struct stat info;
	long pid = 0;

	snprintf(detail, sizeof(detail), "%s", segue_error_detail());
	bool there = lstat(socket, &info) == 0;
	int held = segue_cli_lock_holder(dir, &pid);
	if (held == 1 && pid)
		find(doctor, BAD, "server", "give its socket with --socket, or end that process",
			"process %ld serves %s, but does not answer at %s: %s", pid, dir, socket,
			detail);
	else if (held == 1)
		find(doctor, BAD, "server", "wait until that process has ended",
			"another process has %s, and no server answers at %s: %s", dir, socket,
			detail);
	if (held == 1)
		return;
	find(doctor, OK, "server", "", "none runs");
	if (there && !S_ISSOCK(info.st_mode))
		find(doctor, BAD, "socket", "move it away, or give another path with --socket",
			"%s is there, and is no socket", socket);
	else if (there)
		find(doctor, WARN, "socket", "nothing to do: the next start of a server removes it",
			"%s is left over: nobody listens on it", socket);
}

/* What a report says, read; NULL and why in *rc if there is none. */
static struct json_object *ask(struct doctor *doctor, enum segue_report what, int *rc)
{
	struct json_object *report = NULL;
	char *json;

	*rc = segue_cli_report(doctor->options, what, &json);
	if (*rc)
		return NULL;
	*rc = segue_json_parse(json, &report);
	segue_free(json);
	return report;
}

/* One that a store refers to. */
static void look_at_log(struct doctor *doctor, struct json_object *stream)
{
	struct json_object *log = json_object_object_get(stream, "log");

	if (log && segue_json_get_unsigned(log, "files") == 0)
		find(doctor, BAD, "log", "restore a backup, or drop the stream",
			"that of stream '%s' is missing", segue_json_get_text(stream, "name"));
}

/* What the report of the store says of logs, and of the need for memory. */
static void look_at_streams(struct doctor *doctor)
{
	int rc;
	struct json_object *report = ask(doctor, SEGUE_REPORT_INSPECT, &rc);
	struct json_object *streams = json_object_object_get(report, "streams");

	for (size_t i = 0; i < segue_json_count(streams); i++) {
		struct json_object *stream = segue_json_at(streams, i);
		struct json_object *spec = json_object_object_get(stream, "spec");
		doctor->lane_bytes += segue_json_get_unsigned(stream, "lane_bytes") *
				      segue_json_get_unsigned(spec, "lanes");
		look_at_log(doctor, stream);
	}
	json_object_put(report);
}

static void look_at_server(struct doctor *doctor)
{
	const char *given = doctor->options->socket;
	char socket[PATH_MAX + 32];
	char *base = segue_cli_need(segue_cli_absolute(given ? given : doctor->options->dir));
	int rc;

	snprintf(socket, sizeof(socket), "%s%s", base, given ? "" : "/segue.sock");
	free(base);
	struct json_object *report = ask(doctor, SEGUE_REPORT_STATUS, &rc);
	doctor->served = rc == 0;
	if (!rc)
		look_at_answer(doctor, report);
	else if (rc == SEGUE_EGONE)
		look_at_silence(doctor, socket);
	else
		find(doctor, BAD, "server", "", "%s", segue_error_detail());
	json_object_put(report);
}

/* ---- The store ---- */

/* Only where no server has it open. */
static void look_at_store(struct doctor *doctor, const char *dir)
{
	struct segue_store_stats stats;
	struct segue_store *store;
	char size[32];

	int rc = segue_store_open(dir, SEGUE_STORE_READ, &store);
	if (rc == SEGUE_ENOTFOUND)
		find(doctor, OK, "store", "", "none yet: the first server makes it");
	else if (rc == SEGUE_EBUSY)
		find(doctor, OK, "store", "", "in use");
	else if (rc)
		find(doctor, BAD, "store", "'segue verify' says more", "%s", segue_error_detail());
	if (rc)
		return;
	segue_store_stats(store, &stats);
	segue_store_close(store);
	segue_cli_bytes(stats.file_bytes, size);
	if (stats.was_clean || stats.same_boot)
		find(doctor, OK, "store", "", "%s, %s%s", size, stats.lmdb_version,
			stats.was_clean ? "" : ", the last server was killed, which it survives");
	else
		find(doctor, WARN, "store",
			"nothing: the next server verifies it first ('segue verify' does it now)",
			"%s, %s, the machine stopped while a server ran", size, stats.lmdb_version);
}

static int time_commits(struct segue_store *store, double *milliseconds)
{
	char value[4056] = "";
	const struct segue_store_op op = {
		.table = SEGUE_TABLE_STATES,
		.key = "doctor",
		.key_size = 6,
		.value = value,
		.value_size = sizeof(value),
	};
	int64_t began = segue_now_ns();

	for (int i = 0; i < COMMITS_TIMED; i++) {
		value[0] = (char)i;
		int rc = segue_store_apply(store, &op, 1);
		if (rc)
			return rc;
	}
	*milliseconds = (double)(segue_now_ns() - began) / 1e6 / COMMITS_TIMED;
	return 0;
}

/* The proof that a store works in a place is to make one. */
static void try_store(struct doctor *doctor, const char *place)
{
	struct segue_store_stats stats = {0};
	struct segue_store *store;
	char trial[PATH_MAX];
	double milliseconds = 0;

	if (snprintf(trial, sizeof(trial), "%s/" TRIAL_PREFIX "XXXXXX", place) >=
			(int)sizeof(trial) ||
		!mkdtemp(trial)) {
		find(doctor, BAD, "trial store", "", "cannot make a directory in %s: %s", place,
			strerror(errno));
		return;
	}
	int rc = segue_store_open(trial, SEGUE_STORE_SERVE, &store);
	if (!rc) {
		segue_store_stats(store, &stats);
		rc = time_commits(store, &milliseconds);
		segue_store_close(store);
	}
	segue_tree_remove(AT_FDCWD, trial);
	if (rc)
		find(doctor, BAD, "trial store", "", "%s", segue_error_detail());
	else
		find(doctor, milliseconds > 50 ? WARN : OK, "trial store",
			"use a faster disk, or keep durability=\"interval\"",
			"made, written and removed in %s: a commit takes %.2f ms (%s)", place,
			milliseconds, stats.lmdb_version);
}

/* ---- All of it ---- */

/* In the nearest directory above that exists. */
static void examine_place_of(struct doctor *doctor, const char *dir)
{
	char *place = segue_cli_need(segue_cli_absolute(dir)), *slash;

	find(doctor, OK, "directory", "", "%s does not exist yet: it is made when it is first used",
		dir);
	while (access(place, F_OK) < 0 && (slash = strrchr(place, '/')) && slash != place)
		*slash = '\0';
	if (look_at_rights(doctor, place)) {
		look_at_file_system(doctor, place);
		look_at_space(doctor, place);
		try_store(doctor, place);
	}
	free(place);
}

static void examine_directory(struct doctor *doctor, const char *dir)
{
	if (access(dir, F_OK) < 0 && errno == ENOENT) {
		examine_place_of(doctor, dir);
		return;
	}
	if (!look_at_rights(doctor, dir))
		return;
	look_at_file_system(doctor, dir);
	look_at_space(doctor, dir);
	look_at_copies(doctor, dir);
	look_at_server(doctor);
	look_at_leftovers(doctor, dir);
	if (!doctor->served)
		look_at_store(doctor, dir);
	try_store(doctor, dir);
	look_at_streams(doctor);
}

static int run_doctor(const struct segue_cli_options *options)
{
	struct doctor doctor = {.options = options};
	const char *temporary = getenv("TMPDIR");
	char *json;

	segue_json_begin(&doctor.json, NULL, '{');
	segue_json_begin(&doctor.json, "findings", '[');
	if (options->dir)
		examine_directory(&doctor, options->dir);
	else
		try_store(&doctor, temporary && *temporary ? temporary : "/tmp");
	look_at_versions(&doctor);
	look_at_kernel(&doctor);
	look_at_processor(&doctor);
	look_at_limits(&doctor);
	look_at_memory(&doctor);
	look_at_dev_shm(&doctor);
	segue_json_end(&doctor.json, ']');
	segue_json_string(&doctor.json, "worst", level_names[doctor.worst]);
	segue_json_end(&doctor.json, '}');
	if (segue_json_take(&doctor.json, &json))
		return segue_cli_fail();
	int status = segue_cli_show(options, json, print_report);
	return status == SEGUE_CLI_FINE && doctor.worst == BAD ? SEGUE_CLI_WRONG : status;
}

const struct segue_cli_command segue_cli_doctor = {
	.name = "doctor",
	.operands = "[DIR]",
	.summary = "say what is wrong with a machine or DIR",
	.help = "Looks at kernel, memory, limits and versions; with DIR also at its file\n"
		"system, space, rights, server, store and what killed processes left there.\n"
		"Makes a small store in DIR (else in $TMPDIR or /tmp), writes to it, and\n"
		"removes it again. Each finding is ok, warn (it works, with a drawback) or bad\n"
		"(it does not work), with what to do.\n\n"
		"Exit status: 0 nothing is bad, 1 something is, 2 wrong usage.\n",
	.takes = SEGUE_CLI_JSON | SEGUE_CLI_SOCKET,
	.operands_min = 0,
	.operands_max = 1,
	.run = run_doctor,
};
