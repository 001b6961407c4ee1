/* Plain C for one network whose sizes are known when it is compiled. `real`, BATCH and the layers'
   activations come from the generated lines above, the calls from those below. */

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

static inline void softmax(const real *restrict z, real *restrict y, int m)
{
    real top = z[0], sum = 0;
    for (int i = 1; i < m; i++)
        top = z[i] > top ? z[i] : top;
    for (int i = 0; i < m; i++)
        sum += y[i] = EXP(z[i] - top);
    for (int i = 0; i < m; i++)
        y[i] /= sum;
}

static inline void log_softmax(const real *restrict z, real *restrict y, real *restrict s, int m)
{
    real top = z[0], sum = 0;
    softmax(z, s, m);
    for (int i = 1; i < m; i++)
        top = z[i] > top ? z[i] : top;
    for (int i = 0; i < m; i++)
        sum += EXP(z[i] - top);
    for (int i = 0; i < m; i++)
        y[i] = z[i] - top - LOG(sum);
}

/* jac[i, h] = scale[i] * (w[h, i] - sum_j s[j] w[h, j]); wt is w transposed, (m, fan_in) */
static inline void centre(const real *restrict s, const real *restrict scale, const real *restrict wt,
                          real *restrict mean, real *restrict jac, int m, int fan_in)
{
    for (int h = 0; h < fan_in; h++)
        mean[h] = 0;
    for (int i = 0; i < m; i++)
        for (int h = 0; h < fan_in; h++)
            mean[h] += s[i] * wt[i * fan_in + h];
    for (int i = 0; i < m; i++)
        for (int h = 0; h < fan_in; h++)
            jac[i * fan_in + h] = scale[i] * (wt[i * fan_in + h] - mean[h]);
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
