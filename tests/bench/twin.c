/* The benchmark's twin of edge_rules/advice/kernels/sample.py `step` with Hampel and trend armed: gate, outlier of the
 * trailing window of eleven, robust local linear trend. Written from the same definitions, to compare speed. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define W 11
enum { MISSING = 1, LATE = 2, OUTLIER = 4, STEP = 64 };

typedef struct {
    int64_t t, n, run;
    double ring[W], sorted[W];
    double x, v, p00, p01, p11;
    double last, swing; /* mean square of the difference between neighbours */
} channel;

static double deviation(const double *w)
{
    int low = W / 2 - 1, high = W / 2 + 1;
    double median = w[W / 2], d = 0.0;
    for (int i = 0; i < W / 2; i++) {
        double below = low >= 0 ? median - w[low] : INFINITY;
        double above = high < W ? w[high] - median : INFINITY;
        if (below <= above) { d = below; low--; } else { d = above; high++; }
    }
    return d;
}

static void swing(channel *s, double x, double resolution)
{
    if (s->n == 0) return;
    double square = (x - s->last) * (x - s->last);
    double most = 5.0 * 5.0 * fmax(s->swing, resolution * resolution);
    if (s->n >= W && most > 0.0) square = fmin(square, most);
    s->swing += (s->n >= 1000 ? 1.0 / 1000 : 1.0 / (double)s->n) * (square - s->swing);
}

static int hampel(channel *s, double x, double k, double floor)
{
    int size = s->n < W ? (int)s->n : W, j = 0;
    if (size == W) {
        double oldest = s->ring[s->n % W];
        while (j < W - 1 && s->sorted[j] != oldest) j++;
        size--;
        for (; j < size; j++) s->sorted[j] = s->sorted[j + 1];
    }
    for (j = size; j > 0 && s->sorted[j - 1] > x; j--) s->sorted[j] = s->sorted[j - 1];
    s->sorted[j] = x;
    s->ring[s->n % W] = x;
    if (size + 1 < W) return 0;
    double mad = 1.4826 * deviation(s->sorted), off = x - s->sorted[W / 2];
    double square = fmin(mad * mad, 1.875 * 1.875 * s->swing);
    square = fmax(fmax(square, 1.25 * 1.25 * s->swing), floor * floor);
    return off * off > k * k * square && square > 0.0 ? OUTLIER : 0;
}

static int trend(channel *s, double dt, double x, double r, double q)
{
    int flags = 0;
    s->x += s->v * dt;
    s->p00 += dt * (2.0 * s->p01 + dt * (s->p11 + q * dt / 3.0));
    s->p01 += dt * (s->p11 + q * dt / 2.0);
    s->p11 += q * dt;
    double error = x - s->x, variance = s->p00 + r, bound = 3.0 * sqrt(variance);
    if (fabs(error) > bound) {
        int sign = error > 0.0 ? 1 : -1;
        s->run = s->run * sign > 0 ? s->run + sign : sign;
        if (s->run >= 6 || s->run <= -6) {
            s->p00 += error * error;
            variance = s->p00 + r;
            s->run = 0;
            flags = STEP;
        } else {
            variance *= fabs(error) / bound;
        }
    } else {
        s->run = 0;
    }
    double gain0 = s->p00 / variance, gain1 = s->p01 / variance;
    s->x += gain0 * error;
    s->v += gain1 * error;
    s->p11 -= gain1 * s->p01;
    s->p01 -= gain0 * s->p01;
    s->p00 -= gain0 * s->p00;
    s->p00 = fmax(s->p00, 1e-12 * r);
    s->p11 = fmax(s->p11, 1e-18 * r);
    double most = sqrt(s->p00 * s->p11);
    if (fabs(s->p01) > most) s->p01 = copysign(most, s->p01);
    return flags;
}

void pondwatch_twin(const int64_t *idx, const int64_t *t, const double *x, int64_t m, channel *state, double k,
                    double floor, double resolution, double r, double q, int64_t *said)
{
    for (int64_t j = 0; j < m; j++) {
        channel *s = &state[idx[j]];
        if (!isfinite(x[j])) { said[j] = MISSING; continue; }
        if (s->n > 0 && t[j] <= s->t) { said[j] = LATE; continue; }
        int flags = hampel(s, x[j], k, floor);
        swing(s, x[j], resolution);
        if (s->n == 0) {
            s->x = x[j]; s->v = 0.0; s->p00 = r; s->p01 = 0.0; s->p11 = r;
        } else {
            flags |= trend(s, (double)(t[j] - s->t) / 3.6e12, x[j], r, q);
        }
        s->last = x[j];
        s->t = t[j];
        s->n++;
        said[j] = flags;
    }
}

int64_t pondwatch_twin_size(void) { return sizeof(channel); }
