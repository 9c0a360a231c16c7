/* What packed layers need for one token, for x86 with AVX-512 BF16; compiled by native.py.

   int4_product multiplies bfloat16 inputs and 4-bit codes:
   codes   [rows/16][columns/8][16 rows][2] of uint16: nibble i of word p holds column 2 i + p
   scales  [rows/16][columns/group][16] of float16
   offsets the same, or NULL: what the mean input of the group is multiplied with
   x       [tokens][columns] of bfloat16; sums [tokens][columns/group] of float, or NULL
   y       [tokens][rows] of bfloat16

   Two columns of 16 rows are one multiplication: vpermw turns 32 nibbles into bfloat16 values of
   code - 8, which is exact, and it looks at five bits of a word, so the table is there twice. */

#include <immintrin.h>
#include <math.h>
#include <stdint.h>

#define CHUNK 256      /* positions whose weights are held at once */
#define MOST_WIDTH 256 /* of a head; native.py checks it */

void int4_product(const uint16_t *codes, const uint16_t *scales, const uint16_t *offsets,
                  const uint16_t *x, const float *sums, uint16_t *y, int64_t tokens, int64_t rows,
                  int64_t columns, int64_t group, int32_t threads) {
  uint16_t values[32];
  for (int i = 0; i < 32; i++) {
    union { float f; uint32_t u; } value = {.f = (float)(i % 16 - 8)};
    values[i] = (uint16_t)(value.u >> 16);
  }
  const __m512i table = _mm512_loadu_si512(values);
  const int64_t groups = columns / group;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t block = 0; block < rows / 16; block++) {
    for (int64_t token = 0; token < tokens; token++) {
      const uint16_t *q = codes + block * columns * 4;
      const int32_t *pairs = (const int32_t *)(x + token * columns);
      __m512 total = _mm512_setzero_ps();
      for (int64_t g = 0; g < groups; g++) {
        __m512 a = _mm512_setzero_ps(), b = a, c = a, d = a;
        for (int64_t k = 0; k < group; k += 8, q += 32, pairs += 4) {
          const __m512i v = _mm512_loadu_si512(q);
#define STEP(sum, shifted, i)                                                                   \
  sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_permutexvar_epi16(shifted, table),               \
                         (__m512bh)_mm512_set1_epi32(pairs[i]))
          STEP(a, v, 0);
          STEP(b, _mm512_srli_epi16(v, 4), 1);
          STEP(c, _mm512_srli_epi16(v, 8), 2);
          STEP(d, _mm512_srli_epi16(v, 12), 3);
        }
        const int64_t at = (block * groups + g) * 16;
        const __m512 sum = _mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d));
        const __m512 scale = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(scales + at)));
        total = _mm512_fmadd_ps(sum, scale, total);
        if (offsets) {
          const __m512 z = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(offsets + at)));
          total = _mm512_fmadd_ps(z, _mm512_set1_ps(sums[token * groups + g]), total);
        }
      }
      _mm256_storeu_si256((__m256i *)(y + token * rows + block * 16),
                          (__m256i)_mm512_cvtneps_pbh(total));
    }
  }
}

/* The weight itself, rounded to bfloat16, as [columns][rows], for products of many tokens. */
void int4_dense(const uint16_t *codes, const uint16_t *scales, const uint16_t *offsets,
                uint16_t *dense, int64_t rows, int64_t columns, int64_t group, int32_t threads) {
  float values[16];
  for (int i = 0; i < 16; i++) values[i] = (float)(i - 8);
  const __m512 table = _mm512_loadu_ps(values);
  const int64_t groups = columns / group;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t block = 0; block < rows / 16; block++) {
    const uint16_t *q = codes + block * columns * 4;
    for (int64_t k = 0; k < columns; k += 8, q += 32) {
      const int64_t at = (block * groups + k / group) * 16;
      const __m512 scale = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(scales + at)));
      const __m512 offset =
          offsets ? _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(offsets + at)))
                  : _mm512_setzero_ps();
      const __m512i v = _mm512_loadu_si512(q);
      for (int p = 0; p < 2; p++) {
        for (int i = 0; i < 4; i++) {
          const __m512i code = _mm512_srli_epi32(v, 16 * p + 4 * i); /* its low four bits count */
          const __m512 value = _mm512_permutexvar_ps(code, table);
          const __m512 w = _mm512_fmadd_ps(value, scale, offset);
          _mm256_storeu_si256((__m256i *)(dense + (k + 2 * i + p) * rows + block * 16),
                              (__m256i)_mm512_cvtneps_pbh(w));
        }
      }
    }
  }
}

/* Products with int8 codes [rows][columns], one bfloat16 scale per row; x is float. */
void int8_product(const int8_t *codes, const uint16_t *scales, const float *x, uint16_t *y,
                  int64_t tokens, int64_t rows, int64_t columns, int32_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t row = 0; row < rows; row++) {
    const int8_t *q = codes + row * columns;
    union { uint32_t u; float f; } scale = {.u = (uint32_t)scales[row] << 16};
    for (int64_t token = 0; token < tokens; token++) {
      const float *inputs = x + token * columns;
      __m512 a = _mm512_setzero_ps(), b = a;
      int64_t k = 0;
      for (; k + 32 <= columns; k += 32) {
        const __m512i low = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(q + k)));
        const __m512i high = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(q + k + 16)));
        a = _mm512_fmadd_ps(_mm512_cvtepi32_ps(low), _mm512_loadu_ps(inputs + k), a);
        b = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), _mm512_loadu_ps(inputs + k + 16), b);
      }
      float sum = _mm512_reduce_add_ps(_mm512_add_ps(a, b));
      for (; k < columns; k++) sum += (float)q[k] * inputs[k];
      union { __m128bh v; uint16_t u[8]; } out = {.v = _mm_cvtneps_pbh(_mm_set_ss(sum * scale.f))};
      y[token * rows + row] = out.u[0];
    }
  }
}

/* Attention of one token: q [heads][width], keys and values [shared][capacity][width] of which
   `length` positions are filled, out [heads][width] of bfloat16. */
void attend(const float *q, const float *keys, const float *values, uint16_t *out, int64_t heads,
            int64_t shared, int64_t capacity, int64_t length, int64_t width, int32_t threads) {
  const float factor = 1.0f / sqrtf((float)width);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t head = 0; head < heads; head++) {
    const int64_t first = head / (heads / shared) * capacity * width;
    const float *mine = q + head * width;
    float weights[CHUNK], sums[MOST_WIDTH] = {0};
    float top = -INFINITY, total = 0;
    for (int64_t from = 0; from < length; from += CHUNK) {
      const int64_t n = length - from < CHUNK ? length - from : CHUNK;
      const float *k = keys + first + from * width, *v = values + first + from * width;
      float highest = top;
      for (int64_t t = 0; t < n; t++) {
        float dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int64_t i = 0; i < width; i++) dot += mine[i] * k[t * width + i];
        weights[t] = dot * factor;
        highest = weights[t] > highest ? weights[t] : highest;
      }
      const float shrink = expf(top - highest); /* what was summed so far was relative to top */
      top = highest;
      total *= shrink;
      for (int64_t i = 0; i < width; i++) sums[i] *= shrink;
      for (int64_t t = 0; t < n; t++) {
        const float weight = expf(weights[t] - top);
        total += weight;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) sums[i] += weight * v[t * width + i];
      }
    }
    for (int64_t i = 0; i < width; i += 16) {
      const __m512 mean = _mm512_div_ps(_mm512_loadu_ps(sums + i), _mm512_set1_ps(total));
      _mm256_storeu_si256((__m256i *)(out + head * width + i),
                          (__m256i)_mm512_cvtneps_pbh(mean));
    }
  }
}
