/* Plain C for one network, whose sizes the compiler knows. Generated lines come before it, which say what
   `real` is, and after it, which call these functions. */

#include <tgmath.h>

#define R(c) ((real)(c))

static inline void affine(const real *restrict a, const real *restrict w, const real *restrict b,
                          real *restrict z, int fan_in, int fan_out)
{
    for (int h = 0; h < fan_out; h++)
        z[h] = b[h];
    for (int n = 0; n < fan_in; n++) {
        if (a[n] == 0)
            continue;
        for (int h = 0; h < fan_out; h++)
            z[h] += a[n] * w[n * fan_out + h];
    }
}

/* Returns log(sum_i exp(z[i])). */
static inline real softmax(const real *restrict z, real *restrict y, int m)
{
    real top = z[0], sum = 0;
    for (int i = 1; i < m; i++)
        top = z[i] > top ? z[i] : top;
    for (int i = 0; i < m; i++)
        sum += y[i] = exp(z[i] - top);
    for (int i = 0; i < m; i++)
        y[i] /= sum;
    return top + log(sum);
}

/* jac[i, h] = scale[i] * (w[h, i] - sum_j s[j] w[h, j]); wt is w transposed, (m, fan_in); no scale is 1 */
static inline void centre(const real *restrict s, const real *scale, const real *restrict wt,
                          real *restrict mean, real *restrict jac, int m, int fan_in)
{
    for (int h = 0; h < fan_in; h++)
        mean[h] = 0;
    for (int i = 0; i < m; i++)
        for (int h = 0; h < fan_in; h++)
            mean[h] += s[i] * wt[i * fan_in + h];
    for (int i = 0; i < m; i++)
        for (int h = 0; h < fan_in; h++)
            jac[i * fan_in + h] = (scale ? scale[i] : 1) * (wt[i * fan_in + h] - mean[h]);
}

static inline void scale_rows(const real *restrict scale, const real *restrict wt, real *restrict jac,
                              int m, int fan_in)
{
    for (int i = 0; i < m; i++)
        for (int h = 0; h < fan_in; h++)
            jac[i * fan_in + h] = scale[i] * wt[i * fan_in + h];
}

/* jac[i, n] = sum_h dout[i, h] * slope[h] * wt[h, n], inactive units skipped */
static inline void affine_backward(const real *restrict dout, const real *restrict slope,
                                   const real *restrict wt, real *restrict jac, int m, int fan_out, int fan_in)
{
    for (int i = 0; i < m; i++) {
        for (int n = 0; n < fan_in; n++)
            jac[i * fan_in + n] = 0;
        for (int h = 0; h < fan_out; h++) {
            if (slope[h] == 0)
                continue;
            const real factor = dout[i * fan_out + h] * slope[h];
            for (int n = 0; n < fan_in; n++)
                jac[i * fan_in + n] += factor * wt[h * fan_in + n];
        }
    }
}
