#include "features/frontend_config.h"

#include <utility>

namespace edge_speech {
namespace {

Result<std::unique_ptr<Frontend>> create(const FbankConfig& config) {
  Result<OnlineFbank> fbank = OnlineFbank::create(config);
  if (!fbank.ok()) return fbank.status();
  return std::unique_ptr<Frontend>(std::make_unique<OnlineFbank>(std::move(fbank.value())));
}
Result<std::unique_ptr<Frontend>> create(const MfccConfig& config) { return create_mfcc(config); }
Result<std::unique_ptr<Frontend>> create(const LogMelConfig& config) { return create_log_mel(config); }

double first_frame(const FbankConfig& c) {
  return c.snip_edges ? (c.frame_length_ms - c.frame_shift_ms) / 2 : 0.0;
}
double first_frame(const LogMelConfig& c) { return -c.frame_shift_ms / 2; }

}  // namespace

Result<std::unique_ptr<Frontend>> create_frontend(const FrontendConfig& config) {
  return std::visit([](const auto& chosen) { return create(chosen); }, config);
}

int sample_rate(const FrontendConfig& config) {
  return std::visit([](const auto& chosen) { return chosen.sample_rate; }, config);
}

double first_frame_ms(const FrontendConfig& config) {
  return std::visit([](const auto& chosen) { return first_frame(chosen); }, config);
}

double frame_shift_ms(const FrontendConfig& config) {
  return std::visit([](const auto& chosen) { return chosen.frame_shift_ms; }, config);
}

}  // namespace edge_speech
