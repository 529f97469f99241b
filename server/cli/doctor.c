/* segue doctor: what is wrong with this machine, or with a store directory. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
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
#include <sys/un.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <protobuf-c/protobuf-c.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include <zlib.h>

#include "cli/cli.h"
#include "core/error.h"
#include "core/shm.h"
#include "core/wait.h"
#include "source/tfrecord/crc32c.h"
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
	struct segue_cli_table table;
	const struct segue_cli_options *options;
	enum level worst;
	uint64_t lane_bytes; /* shared memory that the streams of the store need; 0: not known */
	bool served;         /* a server answers */
};

/* ---- Findings ---- */

static const char *const level_names[] = {"ok", "warn", "bad"};

/* One finding. `advice`: what to do; "" if there is nothing to do. */
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
	segue_json_string(&doctor->json, "advice", advice);
	segue_json_end(&doctor->json, '}');
	char *printable = segue_cli_printable(text, strlen(text));
	segue_cli_table_add(&doctor->table, "%s", level_names[level]);
	segue_cli_table_add(&doctor->table, "%s", subject);
	segue_cli_table_add(&doctor->table, "%s%s%s", printable, *advice ? ": " : "", advice);
	free(printable);
}

/* ---- The machine ---- */

static void look_at_versions(struct doctor *doctor)
{
	find(doctor, OK, "program", "", "segue %s; protobuf-c %s, zlib %s, xxHash %d.%d.%d",
		segue_version(), protobuf_c_version(), zlibVersion(), XXH_VERSION_NUMBER / 10000,
		XXH_VERSION_NUMBER / 100 % 100, XXH_VERSION_NUMBER % 100);
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
			"use Linux 5.1 or later, or trust all processes of this user",
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

	if (cores > 1)
		find(doctor, OK, "cores", "", "%d", cores);
	else
		find(doctor, WARN, "cores", "give it two or more",
			"one core, which worker and server must share");
	if (strcmp(crc, "table") != 0)
		find(doctor, OK, "CRC32C", "", "%s", crc);
	else
		find(doctor, WARN, "CRC32C", "use a processor with SSE 4.2",
			"in software: reading records is several times slower");
}

/* A number from a small file: 0 if there is none ("max"). */
static uint64_t number_in(const char *path)
{
	char text[64];
	FILE *file = fopen(path, "re");
	uint64_t value = 0;

	if (!file)
		return 0;
	if (fgets(text, sizeof(text), file))
		value = strtoull(text, NULL, 10);
	fclose(file);
	return value;
}

/* The memory cgroup of this process: "" if it cannot be known. Both versions of the kernel's
 * interface. */
static void memory_cgroup(char *path, size_t size, const char **limit_file, const char **used_file)
{
	char line[PATH_MAX];
	FILE *file = fopen("/proc/self/cgroup", "re");

	*path = '\0';
	while (file && fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		char *first = strstr(line, ":memory:");
		if (first) {
			snprintf(path, size, "/sys/fs/cgroup/memory%s", first + 8);
			*limit_file = "memory.limit_in_bytes";
			*used_file = "memory.usage_in_bytes";
			break;
		}
		if (strncmp(line, "0::", 3) == 0) {
			snprintf(path, size, "/sys/fs/cgroup%s", line + 3);
			*limit_file = "memory.max";
			*used_file = "memory.current";
		}
	}
	if (file)
		fclose(file);
}

/* What the tightest cgroup from this process's up to the root leaves; UINT64_MAX: no limit. */
static uint64_t cgroup_limit(uint64_t *used)
{
	char group[PATH_MAX + 64], path[PATH_MAX + 128];
	const char *limit_file = "", *used_file = "";
	uint64_t least = UINT64_MAX;
	const size_t root = strlen("/sys/fs/cgroup");

	memory_cgroup(group, sizeof(group), &limit_file, &used_file);
	while (strlen(group) >= root) {
		snprintf(path, sizeof(path), "%s/%s", group, limit_file);
		uint64_t limit = number_in(path);
		if (limit && limit < least) {
			least = limit;
			snprintf(path, sizeof(path), "%s/%s", group, used_file);
			*used = number_in(path);
		}
		*strrchr(group, '/') = '\0';
	}
	return least < UINT64_C(1) << 60 ? least
					 : UINT64_MAX; /* version 1 has no word for "none" */
}

static uint64_t available_memory(void)
{
	unsigned long long kib = 0;
	char line[128];
	FILE *file = fopen("/proc/meminfo", "re");

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			break;
	}
	if (file)
		fclose(file);
	return kib * 1024;
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
	static const char advice[] = "make room, or give the streams a smaller depth or batch_size";
	char have[32], limit[32], in_use[32], need[32];
	uint64_t used = 0, available = available_memory(), most = cgroup_limit(&used);
	enum level level = judge_memory(doctor, available);

	if (doctor->lane_bytes)
		find(doctor, OK, "shared memory", "",
			"about %s for all lanes of the store's streams",
			segue_cli_bytes(doctor->lane_bytes, need));
	find(doctor, level, "memory", level ? advice : "", "%s available",
		segue_cli_bytes(available, have));
	if (most == UINT64_MAX) {
		find(doctor, OK, "memory cgroup", "", "no limit");
		return;
	}
	/* What is in use is mostly page cache, which gives way: the limit alone is judged. */
	level = judge_memory(doctor, most);
	find(doctor, level, "memory cgroup",
		level ? "raise its limit: at the limit the kernel kills processes" : "",
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
	enum level level = judge_memory(doctor, left);
	find(doctor, level, "/dev/shm",
		level ? "make it larger (docker run --shm-size, or remount with size=)" : "",
		"%s left", segue_cli_bytes(left, size));
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
		find(doctor,
			files < FDS_LEAST         ? BAD
			: files < FDS_COMFORTABLE ? WARN
						  : OK,
			"open files",
			files < FDS_COMFORTABLE ? "raise the limit (ulimit -n): each lane in use "
						  "and each data file takes some"
						: "",
			"limit %llu", (unsigned long long)files);
	if (space == UINT64_MAX)
		find(doctor, OK, "address space", "", "no limit");
	else
		find(doctor, space < GIB ? BAD : WARN, "address space",
			"lift it (ulimit -v unlimited): the store maps its file whole",
			"limit %s, which also limits the size of the store",
			segue_cli_bytes(space, text));
	if (size != UINT64_MAX)
		find(doctor, size < GIB ? BAD : WARN, "file size",
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
	enum level level = bytes < 64 * MIB ? BAD : bytes < GIB ? WARN : OK;
	find(doctor, level, "free space",
		level ? "make room: states, index and inflated files go here" : "", "%s",
		segue_cli_bytes(bytes, left));
	if (info.f_files && info.f_favail < 64)
		find(doctor, BAD, "free inodes", "remove files", "%llu left",
			(unsigned long long)info.f_favail);
}

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
	if (access(dir, R_OK | W_OK | X_OK) < 0) {
		find(doctor, BAD, "rights", "run as its owner, or give it another mode",
			"uid %u may not read and write %s (owner %u, mode %04o): %s", geteuid(),
			dir, info.st_uid, info.st_mode & 07777, strerror(errno));
		return false;
	}
	if (info.st_mode & 0022)
		find(doctor, WARN, "rights", "chmod go-w",
			"others may write in %s (owner %u, mode %04o)", dir, info.st_uid,
			info.st_mode & 07777);
	else
		find(doctor, OK, "rights", "", "owner %u, mode %04o", info.st_uid,
			info.st_mode & 07777);
	return true;
}

static bool is_leftover(const char *name, const char *prefix, const char *suffix)
{
	size_t size = strlen(name), own = strlen(suffix);

	return strncmp(name, prefix, strlen(prefix)) == 0 && size >= own &&
	       strcmp(name + size - own, suffix) == 0;
}

/* What was being made by processes that were killed. */
static void look_at_leftovers(struct doctor *doctor, const char *dir)
{
	DIR *stream = opendir(dir);
	unsigned stores = 0, trials = 0;

	if (!stream)
		return;
	for (struct dirent *entry; (entry = readdir(stream));) {
		stores += is_leftover(entry->d_name, ".store-", ".new");
		trials += is_leftover(entry->d_name, TRIAL_PREFIX, "");
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

static void look_at_answer(struct doctor *doctor, const struct segue_json_value *report)
{
	const struct segue_json_value *server = segue_json_get(report, "server");
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
		segue_json_get_text(segue_json_get(report, "store"), "lmdb"),
		segue_json_get_text(segue_json_get(report, "store"), "transactions"));
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
	if (held == 1 && !pid) {
		find(doctor, BAD, "server", "wait until that process has ended",
			"another process has %s, and no server answers at %s: %s", dir, socket,
			detail);
		return;
	}
	if (held == 1) {
		find(doctor, BAD, "server", "give its socket with --socket, or end that process",
			"process %ld serves %s, but does not answer at %s: %s", pid, dir, socket,
			detail);
		return;
	}
	find(doctor, OK, "server", "", "none runs");
	if (there && !S_ISSOCK(info.st_mode))
		find(doctor, BAD, "socket", "move it away, or give another path with --socket",
			"%s is there, and is no socket", socket);
	else if (there)
		find(doctor, WARN, "socket", "nothing to do: the next start of a server removes it",
			"%s is left over: nobody listens on it", socket);
}

/* What the report of the store says of the need for memory. */
static void add_need(struct doctor *doctor)
{
	struct segue_json_value *report;
	char *json;

	if (segue_cli_report(doctor->options, SEGUE_REPORT_INSPECT, &json))
		return;
	if (segue_json_parse(json, strlen(json), &report) == 0) {
		const struct segue_json_value *streams = segue_json_get(report, "streams");
		for (const struct segue_json_value *stream = streams ? streams->first : NULL;
			stream; stream = stream->next)
			doctor->lane_bytes +=
				segue_json_get_unsigned(stream, "lane_bytes") *
				segue_json_get_unsigned(segue_json_get(stream, "spec"), "lanes");
		segue_json_destroy(report);
	}
	segue_free(json);
}

static void look_at_server(struct doctor *doctor)
{
	struct segue_json_value *report;
	char *dir = segue_cli_absolute(doctor->options->dir), *json = NULL, *socket = NULL;

	if (doctor->options->socket)
		socket = segue_cli_absolute(doctor->options->socket);
	else if (!dir || asprintf(&socket, "%s/segue.sock", dir) < 0)
		socket = NULL;
	if (!socket)
		goto out;
	if (strlen(socket) >= sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
		find(doctor, BAD, "socket", "give a shorter one with --socket",
			"the path %s has %zu bytes, the system allows %zu", socket, strlen(socket),
			sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1);
		goto out;
	}
	int rc = segue_cli_report(doctor->options, SEGUE_REPORT_STATUS, &json);
	doctor->served = rc == 0;
	if (rc == 0 && segue_json_parse(json, strlen(json), &report) == 0) {
		look_at_answer(doctor, report);
		segue_json_destroy(report);
	} else if (rc == SEGUE_EGONE) {
		look_at_silence(doctor, socket);
	} else {
		find(doctor, BAD, "server", "", "%s", segue_error_detail());
	}
out:
	segue_free(json);
	free(socket);
	free(dir);
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
	if (stats.was_clean || stats.same_boot)
		find(doctor, OK, "store", "", "%s, %s%s", segue_cli_bytes(stats.file_bytes, size),
			stats.lmdb_version,
			stats.was_clean ? "" : ", the last server was killed, which it survives");
	else
		find(doctor, WARN, "store",
			"nothing: the next server verifies it first ('segue verify' does it now)",
			"%s, %s, the machine stopped while a server ran",
			segue_cli_bytes(stats.file_bytes, size), stats.lmdb_version);
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

/* Best effort, of what a store consists of. */
static void remove_trial(const char *trial)
{
	static const char *const parts[] = {
		"store/data.mdb", "store/lock.mdb", "store", "server.pid", ""};
	char path[PATH_MAX + 32];

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", trial, parts[i]);
		remove(path);
	}
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
	remove_trial(trial);
	if (rc)
		find(doctor, BAD, "trial store", "", "%s", segue_error_detail());
	else
		find(doctor, milliseconds > 50 ? WARN : OK, "trial store",
			milliseconds > 50 ? "use a faster disk, or keep durability=\"interval\""
					  : "",
			"made, written and removed in %s: a commit takes %.2f ms (%s)", place,
			milliseconds, stats.lmdb_version);
}

/* ---- All of it ---- */

/* The nearest directory above (or at) `path` that exists. */
static char *existing_above(const char *path)
{
	char *place = segue_cli_absolute(path);

	while (place && access(place, F_OK) < 0) {
		char *slash = strrchr(place, '/');
		if (!slash || slash == place)
			break;
		*slash = '\0';
	}
	return place;
}

static void examine_directory(struct doctor *doctor)
{
	const char *dir = doctor->options->dir;

	if (access(dir, F_OK) < 0 && errno == ENOENT) {
		char *place = existing_above(dir);
		find(doctor, OK, "directory", "",
			"%s does not exist yet: it is made when it is "
			"first used",
			dir);
		if (place && look_at_rights(doctor, place)) {
			look_at_file_system(doctor, place);
			look_at_space(doctor, place);
			try_store(doctor, place);
		}
		free(place);
		return;
	}
	if (!look_at_rights(doctor, dir))
		return;
	look_at_file_system(doctor, dir);
	look_at_space(doctor, dir);
	look_at_server(doctor);
	look_at_leftovers(doctor, dir);
	if (!doctor->served)
		look_at_store(doctor, dir);
	try_store(doctor, dir);
	add_need(doctor);
}

static void examine_machine(struct doctor *doctor)
{
	look_at_versions(doctor);
	look_at_kernel(doctor);
	look_at_processor(doctor);
	look_at_limits(doctor);
	look_at_memory(doctor);
	look_at_dev_shm(doctor);
}

static int run_doctor(const struct segue_cli_options *options)
{
	static const char *const headers[] = {"LEVEL", "SUBJECT", "FINDING"};
	struct doctor doctor = {.options = options};
	const char *temporary = getenv("TMPDIR");
	char *json;

	segue_cli_table_init(&doctor.table, 3, headers);
	segue_json_begin(&doctor.json, NULL, '{');
	segue_json_begin(&doctor.json, "findings", '[');
	if (options->dir)
		examine_directory(&doctor);
	else
		try_store(&doctor, temporary && *temporary ? temporary : "/tmp");
	examine_machine(&doctor);
	segue_json_end(&doctor.json, ']');
	segue_json_string(&doctor.json, "worst", level_names[doctor.worst]);
	segue_json_end(&doctor.json, '}');
	int rc = segue_json_take(&doctor.json, &json);
	if (!rc && options->json)
		puts(json);
	else if (!rc)
		segue_cli_table_print(&doctor.table, 0);
	segue_cli_table_finish(&doctor.table);
	if (rc)
		return segue_cli_fail();
	free(json);
	return doctor.worst == BAD ? SEGUE_CLI_WRONG : SEGUE_CLI_FINE;
}

const struct segue_cli_command segue_cli_doctor = {
	.name = "doctor",
	.operands = "[DIR]",
	.summary = "say what is wrong with this machine or directory",
	.help = "Looks at kernel, memory, limits and versions; with DIR also at its file system,\n"
		"space, rights, server, store and what killed processes left there. Makes a small\n"
		"store in DIR (else in $TMPDIR or /tmp), writes to it, and removes it again.\n"
		"Each finding is ok, warn (works, but) or bad (does not work), with what to do.\n\n"
		"Exit status: 0 nothing is bad, 1 something is, 2 wrong usage.\n",
	.takes = SEGUE_CLI_JSON | SEGUE_CLI_SOCKET,
	.operands_min = 0,
	.operands_max = 1,
	.run = run_doctor,
};
