/* A stand-in for libnvidia-ml.so.1: the real pynvml loads it through ctypes, so that its structures and calls are exercised.

   One device. Environment variables say how it behaves; times are seconds of CLOCK_MONOTONIC, which Python's perf_counter
   reads as well:
     NVML_UUID        "GPU-..." of the device
     NVML_POWER       a file with lines "from_s watts": the power from that time on; NVML_WATTS where there is none
     NVML_TICK        time between two updates of counter and sensor [s]
     NVML_SENSOR      error of the power sensor, as a factor
     NVML_LOST_AT     from this time on every call answers "GPU is lost"
     NVML_INIT        what nvmlInit answers (9: no driver; 18: library and driver differ)
     NVML_ENERGY      what the energy counter answers (3: not supported; 4: no permission)
     NVML_FIELDS      what the instantaneous power answers (3 on devices before Ampere)
     NVML_MODULE      power of the whole module [W], as on superchips; none where it is missing
     NVML_MIG         1: the GPU is split into MIG instances
     NVML_PROCESSES   how many processes have a context on it
     NVML_ECC         ECC errors: corrected and uncorrected since the driver was loaded, then the same of the device's life;
                      no ECC where it is missing
     NVML_ROWS        remapped rows: corrected, uncorrected, whether one is pending, whether one failed
     NVML_XIDS        numbers of Xid events that come after their registration; -1: events need a permission
     NVML_STATE       a file with power limit [mW] and locked clock [MHz, 0: none], shared by all processes
     NVML_LIMITS      what setting a limit or clock answers (4: no permission)
     NVML_KEEPS       power limit that the device enforces whatever is set [mW]
     NVML_REASONS     bits of the clocks' event reasons
   Structures are those of nvml.h, versions 12 and 13. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int Return;
typedef void *Device;

enum { SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, TIMEOUT = 10, LOST = 15 };

static double setting(const char *name, double otherwise) {
    const char *text = getenv(name);
    return text ? atof(text) : otherwise;
}

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static double last_tick_s(void) {
    double tick_s = setting("NVML_TICK", 0.1);
    return floor(now_s() / tick_s) * tick_s;
}

static double energy_j(double until_s) {
    double total_j = 0, since_s = 0, watts = setting("NVML_WATTS", 300), from_s, next;
    const char *path = getenv("NVML_POWER");
    FILE *file = path ? fopen(path, "r") : NULL;
    while (file && fscanf(file, "%lf %lf", &from_s, &next) == 2 && from_s < until_s) {
        total_j += watts * (from_s - since_s);
        since_s = from_s;
        watts = next;
    }
    if (file) fclose(file);
    return total_j + watts * (until_s - since_s);
}

/* The average of the last 25 ms of a tick, as A100 and H100 show it. */
static double sensor_w(void) {
    double at_s = last_tick_s(), over_s = 0.025;
    return (energy_j(at_s) - energy_j(at_s - over_s)) / over_s * setting("NVML_SENSOR", 1);
}

static Return alive(void) {
    return now_s() >= setting("NVML_LOST_AT", HUGE_VAL) ? LOST : SUCCESS;
}

/* What the last process set: power limit [mW] and locked clock [MHz]. */
static void read_state(unsigned *limit_mw, unsigned *mhz) {
    const char *path = getenv("NVML_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    *limit_mw = 700000, *mhz = 0;
    if (file && fscanf(file, "%u %u", limit_mw, mhz)) fclose(file);
}

static Return write_state(unsigned limit_mw, unsigned mhz) {
    const char *path = getenv("NVML_STATE");
    Return answer = setting("NVML_LIMITS", alive());
    FILE *file = !answer && path ? fopen(path, "w") : NULL;
    if (file) {
        fprintf(file, "%u %u\n", limit_mw, mhz);
        fclose(file);
    }
    return answer;
}

Return nvmlInitWithFlags(unsigned flags) { return setting("NVML_INIT", SUCCESS); }
Return nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
Return nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(Return code) {
    switch (code) {
        case INVALID_ARGUMENT: return "Invalid Argument";
        case NOT_SUPPORTED: return "Not Supported";
        case NO_PERMISSION: return "Insufficient Permissions";
        case NOT_FOUND: return "Not Found";
        case 9: return "Driver Not Loaded";
        case TIMEOUT: return "Timeout";
        case LOST: return "GPU is lost";
        case 18: return "Driver/library version mismatch";
    }
    return "Unknown Error";
}

Return nvmlSystemGetDriverVersion(char *version, unsigned length) {
    snprintf(version, length, "580.159.04");
    return SUCCESS;
}

Return nvmlDeviceGetVbiosVersion(Device device, char *version, unsigned length) {
    (void)device;
    snprintf(version, length, "96.00.89.00.01");
    return SUCCESS;
}

Return nvmlDeviceGetHandleByUUID(const char *uuid, Device *device) {
    const char *mine = getenv("NVML_UUID");
    if (strncmp(uuid, "GPU-", 4) && strncmp(uuid, "MIG-", 4)) return INVALID_ARGUMENT;
    if (!mine || strcmp(uuid, mine)) return NOT_FOUND;
    *device = (Device)0x10;
    return alive();
}

Return nvmlDeviceIsMigDeviceHandle(Device device, unsigned *is_mig) {
    *is_mig = 0;
    return SUCCESS;
}

Return nvmlDeviceGetMigMode(Device device, unsigned *current, unsigned *pending) {
    *current = *pending = setting("NVML_MIG", 0);
    return SUCCESS;
}

Return nvmlDeviceGetTotalEnergyConsumption(Device device, unsigned long long *energy_mj) {
    *energy_mj = 1e3 * energy_j(last_tick_s());
    return setting("NVML_ENERGY", alive());
}

/* The plain call averages over the last second. */
Return nvmlDeviceGetPowerUsage(Device device, unsigned *power_mw) {
    double at_s = last_tick_s();
    *power_mw = 1e3 * (energy_j(at_s) - energy_j(at_s - 1)) * setting("NVML_SENSOR", 1);
    return alive();
}

typedef struct {
    unsigned field, scope;
    long long timestamp_us, latency_us;
    unsigned kind;
    Return answer;
    union {
        double d;
        unsigned u;
        unsigned long long ull;
    } value;
} FieldValue;

Return nvmlDeviceGetFieldValues(Device device, int count, FieldValue *fields) {
    for (int i = 0; i < count; i++) {
        const char *module = getenv("NVML_MODULE");
        double watts = fields[i].scope == 0 ? sensor_w() : module ? atof(module) : -1;
        fields[i].answer = setting("NVML_FIELDS", fields[i].field == 186 && watts >= 0 ? SUCCESS : NOT_SUPPORTED);
        fields[i].kind = 1;
        fields[i].value.ull = 0;
        fields[i].value.u = 1e3 * watts;
    }
    return alive();
}

Return nvmlDeviceGetClockInfo(Device device, unsigned kind, unsigned *mhz) {
    unsigned limit_mw, locked_mhz;
    read_state(&limit_mw, &locked_mhz);
    *mhz = kind != 1 ? 2619 : locked_mhz ? locked_mhz : 1755;
    return alive();
}

Return nvmlDeviceGetMaxClockInfo(Device device, unsigned kind, unsigned *mhz) {
    *mhz = kind == 1 ? 1980 : 2619;
    return alive();
}

Return nvmlDeviceGetTemperature(Device device, unsigned kind, unsigned *celsius) {
    *celsius = 45;
    return alive();
}

Return nvmlDeviceGetPowerManagementLimitConstraints(Device device, unsigned *lowest_mw, unsigned *highest_mw) {
    *lowest_mw = 200000, *highest_mw = 700000;
    return alive();
}

Return nvmlDeviceGetPowerManagementLimit(Device device, unsigned *limit_mw) {
    unsigned mhz;
    read_state(limit_mw, &mhz);
    return alive();
}

Return nvmlDeviceGetEnforcedPowerLimit(Device device, unsigned *limit_mw) {
    nvmlDeviceGetPowerManagementLimit(device, limit_mw);
    *limit_mw = setting("NVML_KEEPS", *limit_mw);
    return alive();
}

Return nvmlDeviceSetPowerManagementLimit(Device device, unsigned limit_mw) {
    unsigned before_mw, mhz;
    read_state(&before_mw, &mhz);
    return limit_mw < 200000 || limit_mw > 700000 ? INVALID_ARGUMENT : write_state(limit_mw, mhz);
}

Return nvmlDeviceSetGpuLockedClocks(Device device, unsigned lowest_mhz, unsigned highest_mhz) {
    unsigned limit_mw, mhz;
    read_state(&limit_mw, &mhz);
    return write_state(limit_mw, highest_mhz);
}

Return nvmlDeviceResetGpuLockedClocks(Device device) { return nvmlDeviceSetGpuLockedClocks(device, 0, 0); }

Return nvmlDeviceGetSupportedGraphicsClocks(Device device, unsigned memory_mhz, unsigned *count, unsigned *mhz) {
    unsigned room = *count, there = (1980 - 345) / 15 + 1;
    *count = there;
    if (memory_mhz != 2619) return INVALID_ARGUMENT;
    if (room < there) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < there; i++) mhz[i] = 1980 - 15 * i;
    return alive();
}

typedef struct {
    unsigned long long total, free, used;
} Memory;

Return nvmlDeviceGetMemoryInfo(Device device, Memory *memory) {
    memory->total = 85520809984ULL;
    memory->used = 3ULL << 30;
    memory->free = memory->total - memory->used;
    return alive();
}

Return nvmlDeviceGetCurrentClocksEventReasons(Device device, unsigned long long *reasons) {
    *reasons = setting("NVML_REASONS", 0);
    return alive();
}

typedef struct {
    unsigned pid;
    unsigned long long used_bytes;
    unsigned gpu_instance, compute_instance;
} Process;

Return nvmlDeviceGetComputeRunningProcesses_v3(Device device, unsigned *count, Process *processes) {
    unsigned there = setting("NVML_PROCESSES", 0), room = *count;
    *count = there;
    if (room < there) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < there; i++) {
        processes[i].pid = 100 + i;
        processes[i].used_bytes = ~0ULL; /* unknown, as inside a container */
    }
    return alive();
}

Return nvmlDeviceGetTotalEccErrors(Device device, unsigned kind, unsigned since, unsigned long long *count) {
    unsigned long long counts[4];
    const char *text = getenv("NVML_ECC");
    if (!text || sscanf(text, "%llu %llu %llu %llu", counts, counts + 1, counts + 2, counts + 3) != 4) return NOT_SUPPORTED;
    if (kind > 1 || since > 1) return INVALID_ARGUMENT;
    *count = counts[2 * since + kind];
    return alive();
}

Return nvmlDeviceGetRemappedRows(Device device, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed) {
    const char *text = getenv("NVML_ROWS");
    if (!text || sscanf(text, "%u %u %u %u", corrected, uncorrected, pending, failed) != 4) return NOT_SUPPORTED;
    return alive();
}

typedef struct {
    Device device;
    unsigned long long kind, number;
    unsigned gpu_instance, compute_instance;
} Event;

typedef struct {
    unsigned long long kinds;
    int read;
} EventSet;

Return nvmlEventSetCreate(EventSet **set) {
    *set = calloc(1, sizeof **set);
    return SUCCESS;
}

Return nvmlEventSetFree(EventSet *set) {
    free(set);
    return SUCCESS;
}

Return nvmlDeviceRegisterEvents(Device device, unsigned long long kinds, EventSet *set) {
    set->kinds |= kinds;
    return setting("NVML_XIDS", 0) < 0 ? NO_PERMISSION : alive();
}

Return nvmlEventSetWait_v2(EventSet *set, Event *event, unsigned timeout_ms) {
    char numbers[256] = "", *rest = numbers, *number;
    const char *text = getenv("NVML_XIDS");
    if (text) snprintf(numbers, sizeof numbers, "%s", text);
    for (int i = 0; (number = strtok_r(rest, " ", &rest)); i++)
        if (i == set->read && set->kinds & 8) {
            set->read++;
            *event = (Event){(Device)0x10, 8, atoi(number), -1, -1};
            return SUCCESS;
        }
    return TIMEOUT;
}
