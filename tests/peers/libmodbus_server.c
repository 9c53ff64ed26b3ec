/* A Modbus server made of libmodbus alone, for tests: register n holds n (holding) or n + 10000 (input),
 * coil n is on where n is odd. Prints "ready" (and the TCP port it got) when it listens.
 *
 *   libmodbus_server tcp [PORT]     on 127.0.0.1, PORT or any free one, one client after the other
 *   libmodbus_server rtu DEVICE     115200 8N1, unit 1
 */
#include <errno.h>
#include <modbus.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CELLS = 2000, INPUT_OFFSET = 10000, UNIT = 1 };

static void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, modbus_strerror(errno));
    exit(1);
}

static modbus_mapping_t *mapping(void)
{
    modbus_mapping_t *map = modbus_mapping_new(CELLS, CELLS, CELLS, CELLS);
    if (!map)
        die("mapping");
    for (int i = 0; i < CELLS; i++) {
        map->tab_registers[i] = i;
        map->tab_input_registers[i] = i + INPUT_OFFSET;
        map->tab_bits[i] = map->tab_input_bits[i] = i & 1;
    }
    return map;
}

static void serve(modbus_t *ctx, modbus_mapping_t *map)
{
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    for (;;) {
        int size = modbus_receive(ctx, query);
        if (size > 0)
            modbus_reply(ctx, query, size, map);
        else if (size < 0 && errno != EMBBADCRC && errno != EMBBADDATA && errno != ETIMEDOUT)
            return; /* the other side is gone */
        else
            modbus_flush(ctx); /* what was for another unit, or not understood */
    }
}

static void serve_tcp(modbus_mapping_t *map, int port)
{
    modbus_t *ctx = modbus_new_tcp("127.0.0.1", port);
    int listener = ctx ? modbus_tcp_listen(ctx, 1) : -1;
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    if (listener < 0 || getsockname(listener, (struct sockaddr *) &address, &length))
        die("listen");
    printf("ready %d\n", ntohs(address.sin_port));
    fflush(stdout);
    while (modbus_tcp_accept(ctx, &listener) >= 0) {
        serve(ctx, map);
        modbus_close(ctx);
    }
}

static void serve_rtu(modbus_mapping_t *map, const char *device)
{
    modbus_t *ctx = modbus_new_rtu(device, 115200, 'N', 8, 1);
    if (!ctx || modbus_set_slave(ctx, UNIT) || modbus_connect(ctx))
        die(device);
    printf("ready\n");
    fflush(stdout);
    serve(ctx, map);
}

int main(int argc, char **argv)
{
    if ((argc == 2 || argc == 3) && !strcmp(argv[1], "tcp"))
        serve_tcp(mapping(), argc == 3 ? atoi(argv[2]) : 0);
    else if (argc == 3 && !strcmp(argv[1], "rtu"))
        serve_rtu(mapping(), argv[2]);
    else
        fprintf(stderr, "usage: %s tcp [PORT] | rtu DEVICE\n", argv[0]);
    return 1;
}
