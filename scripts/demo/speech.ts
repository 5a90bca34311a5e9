import type { Random } from "../../src/core/random.ts";

/**
 * Speech-like sound for a voice activity detector: syllables of a source-filter voice between pauses of faint noise.
 * A syllable is a train of glottal pulses at a gliding pitch, sent through one two-pole resonator for each formant of its vowel
 * (y[n] = x[n] + 2 r cos(2πf/fs) y[n-1] - r² y[n-2], r = exp(-π bandwidth / fs)), under a smooth envelope.
 */

export const SAMPLE_RATE_HZ = 16_000;

/** Formant frequencies in Hz of a, e, i, o, u (a male voice; Peterson and Barney, 1952, rounded). */
const VOWELS = [
  [730, 1090, 2440],
  [530, 1840, 2480],
  [270, 2290, 3010],
  [570, 840, 2410],
  [300, 870, 2240],
] as const;

const BANDWIDTHS_HZ = [80, 90, 120] as const;
const NOISE_LEVEL = 0.002;

export interface Sound {
  readonly samples: Float32Array<ArrayBuffer>;
  /** Whether each sample lies within a phrase. */
  readonly voiced: Uint8Array;
}

/** `seconds` of sound: phrases of several syllables, pauses between them. */
export function speak(seconds: number, random: Random): Sound {
  const samples = Float32Array.from(
    { length: Math.round(seconds * SAMPLE_RATE_HZ) },
    () => NOISE_LEVEL * (random.uniform() - 0.5),
  );
  const voiced = new Uint8Array(samples.length);
  let position = Math.round(0.4 * SAMPLE_RATE_HZ);
  while (position < samples.length) {
    const start = position;
    const syllables = 4 + random.integer(6);
    for (let i = 0; i < syllables && position < samples.length; i++) {
      const length = Math.round((0.1 + 0.15 * random.uniform()) * SAMPLE_RATE_HZ);
      addSyllable(samples.subarray(position, position + length), random);
      position += length;
    }
    voiced.fill(1, start, position);
    position += Math.round((0.5 + 0.7 * random.uniform()) * SAMPLE_RATE_HZ);
  }
  return { samples, voiced };
}

function addSyllable(into: Float32Array, random: Random): void {
  const formants = VOWELS[random.integer(VOWELS.length)]!;
  const pitchHz = 100 + 80 * random.uniform();
  const glide = 0.8 + 0.4 * random.uniform();
  const consonant = Math.round(into.length * 0.15 * random.uniform());

  let wave: Float32Array = new Float32Array(into.length);
  for (let n = 0, phase = 0; n < wave.length; n++) {
    phase += (pitchHz * (1 + (glide - 1) * (n / wave.length))) / SAMPLE_RATE_HZ;
    const pulse = phase >= 1 ? 1 : 0;
    phase -= pulse;
    wave[n] = pulse + (n < consonant ? 0.3 : 0.02) * (random.uniform() - 0.5);
  }
  for (const [i, formant] of formants.entries()) wave = resonate(wave, formant, BANDWIDTHS_HZ[i]!);

  let peak = 1e-9;
  for (const value of wave) peak = Math.max(peak, Math.abs(value));
  const level = (0.15 + 0.25 * random.uniform()) / peak;
  for (let n = 0; n < wave.length; n++)
    into[n] = into[n]! + level * wave[n]! * Math.sin((Math.PI * (n + 0.5)) / wave.length) ** 0.5;
}

function resonate(input: Float32Array, frequencyHz: number, bandwidthHz: number): Float32Array {
  const radius = Math.exp((-Math.PI * bandwidthHz) / SAMPLE_RATE_HZ);
  const a1 = 2 * radius * Math.cos((2 * Math.PI * frequencyHz) / SAMPLE_RATE_HZ);
  const a2 = -radius * radius;
  const output = new Float32Array(input.length);
  for (let n = 0; n < input.length; n++) output[n] = input[n]! + a1 * (output[n - 1] ?? 0) + a2 * (output[n - 2] ?? 0);
  return output;
}
