/* A Modbus client made of libmodbus alone, to measure ours against.
 *
 *   libmodbus_client tcp PORT REQUESTS COUNT       reads COUNT holding registers so often from 127.0.0.1
 *   libmodbus_client rtu DEVICE BAUD REQUESTS COUNT  the same from unit 1 on a serial line, 8N1, sleeping
 *                                                  the silence between frames as a careful C program does
 *
 * Prints "SECONDS CPU_SECONDS".
 */
#include <errno.h>
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static double cpu(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static int run(modbus_t *ctx, int requests, int count, double gap_s)
{
    uint16_t words[MODBUS_MAX_READ_REGISTERS];
    struct timespec gap = {0, (long) (gap_s * 1e9)};
    if (!ctx || modbus_connect(ctx)) {
        fprintf(stderr, "connect: %s\n", modbus_strerror(errno));
        return 1;
    }
    double begun = now(), used = cpu();
    for (int i = 0; i < requests; i++) {
        if (modbus_read_registers(ctx, 0, count, words) != count) {
            fprintf(stderr, "request %d: %s\n", i, modbus_strerror(errno));
            return 1;
        }
        if (gap_s > 0)
            nanosleep(&gap, NULL);
    }
    printf("%.9f %.9f\n", now() - begun, cpu() - used);
    modbus_close(ctx);
    modbus_free(ctx);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 5 && !strcmp(argv[1], "tcp"))
        return run(modbus_new_tcp("127.0.0.1", atoi(argv[2])), atoi(argv[3]), atoi(argv[4]), 0);
    if (argc == 6 && !strcmp(argv[1], "rtu")) {
        int baud = atoi(argv[3]);
        modbus_t *ctx = modbus_new_rtu(argv[2], baud, 'N', 8, 1);
        if (ctx)
            modbus_set_slave(ctx, 1);
        return run(ctx, atoi(argv[4]), atoi(argv[5]), baud > 19200 ? 0.00175 : 35.0 / baud);
    }
    fprintf(stderr, "usage: %s tcp PORT REQUESTS COUNT | rtu DEVICE BAUD REQUESTS COUNT\n", argv[0]);
    return 2;
}
